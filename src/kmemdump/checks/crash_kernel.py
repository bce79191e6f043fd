# SPDX-License-Identifier: GPL-2.0-or-later
"""Check this machine's crash kernel: would it run, find the list, and have a place?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kmemdump.checks.point import Point, missing, ok, warning
from kmemdump.crash_kernel.places import check_place, parse_place
from kmemdump.crash_kernel.settings import SETTINGS, read_places
from kmemdump.crash_kernel.state import read_state
from kmemdump.errors import FormatError, KmemdumpError
from kmemdump.formats.elfheader import parse_header_region
from kmemdump.formats.kdump_list import LIST_SIZE, parse_list
from kmemdump.memory.physical import Memory
from kmemdump.text import format_memory

__all__ = ["check_crash_kernel"]


def check_crash_kernel(
    memory: Memory, table: str, root: Path = Path("/")
) -> list[Point]:
    """
    Check what a crash kernel needs.

    :param memory: This machine's.
    :param table: Name of the list, which ends with its address.
    :param root: The folder with ``dev``, ``etc``, ``proc`` and ``sys``.
    """
    return [*_check_kernel(root), _check_list(memory, table), _check_places(root)]


def _check_kernel(root: Path) -> Iterator[Point]:
    name, state = "crash kernel", read_state(root)
    size = format_memory(state.reserved)
    if state.loaded:
        yield ok(name, f"loaded, with {size}")
    elif state.reserved:
        yield missing(name, f"not loaded; it has {size}", "load it: kexec -a -p")
    else:
        yield missing(
            name,
            "there is no memory for one",
            "boot with crashkernel=128M, and load it: kexec -a -p",
        )
    if state.survivable:
        settings = " ".join(f"kernel.{name}=1" for name in state.survivable)
        yield warning(
            "panics",
            f"not every fault and hang is a panic: {', '.join(state.survivable)} is 0",
            f"sysctl {settings}",
        )


def _check_list(memory: Memory, table: str) -> Point:
    name = "list"
    try:
        address = int(table.rpartition("-")[2], 16)
        data = memory.read(address, LIST_SIZE)
        half = parse_list(data, address, "list").current
        if half is None:
            raise FormatError("list", "neither half is whole")
        header = parse_header_region(half.description, "list")
    except (KmemdumpError, ValueError) as error:
        return missing(name, str(error).partition("\n")[0], "mark again")
    return ok(name, f"{len(header.entries)} regions, at {address:#x}")


def _check_places(root: Path) -> Point:
    name = "place"
    try:
        places = [parse_place(text) for text in read_places(root / SETTINGS)]
        for place in places:
            check_place(place, root)
    except KmemdumpError as error:
        text, _, advice = str(error).partition("\n")
        return warning(name, text, advice)
    if not places:
        return missing(name, f"{root / SETTINGS} names none", "add a line to=PLACE")
    return ok(name, ", ".join(map(str, places)))
