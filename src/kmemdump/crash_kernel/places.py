# SPDX-License-Identifier: GPL-2.0-or-later
"""
The places that a crash kernel writes to, as this kernel sees them.

``kdump/sinks.c`` reads the same words.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kmemdump.crash_kernel.reserved import check_reserved_place, has_copy
from kmemdump.errors import TargetError, UsageError
from kmemdump.memory.ranges import ADDRESS_SPACE, Range
from kmemdump.proc.mounts import read_mounts

__all__ = ["Place", "check_place", "find_copies", "find_device", "parse_place"]

_PLACE = re.compile(
    r"(?P<kind>raw|console):(?P<device>\S+)"
    r"|memory:(?P<at>0x[0-9a-f]{1,16}):(?P<size>0x[0-9a-f]{1,16})"
    r"|file:(?P<folder>/[^\s@]*)(?:@(?P<type>[a-z0-9]+):(?P<disk>\S+))?"
)
_PAGE = 4096
_LINKS = {"PARTLABEL": "by-partlabel", "PARTUUID": "by-partuuid"}
_COPY = re.compile(r"kmemdump-(\d{1,20})\.elf")


class Place(NamedTuple):
    """A place for core images."""

    kind: str
    """``raw``, ``memory``, ``console`` or ``file``."""
    device: str | None
    """A path, ``PARTLABEL=…`` or ``PARTUUID=…``; ``None`` for what is mounted."""
    folder: str | None = None
    """In the device's file system."""
    file_system: str | None = None
    memory: Range | None = None
    """Reserved memory."""

    def __str__(self) -> str:
        return self.device or self.folder or str(self.memory or self.kind)


def parse_place(text: str) -> Place:
    """
    Parse a place as a user names it.

    :raises UsageError: If it is none.
    """
    found = _PLACE.fullmatch(text)
    if found is None:
        raise UsageError(
            f"{text}: expected file:FOLDER@FSTYPE:DEVICE, raw:DEVICE, "
            "memory:ADDRESS:SIZE (both with 0x) or console:DEVICE"
        )
    if found["kind"]:
        return Place(found["kind"], found["device"])
    if found["at"]:
        where = Range(int(found["at"], 16), int(found["size"], 16))
        if not where.size or where.start % _PAGE or where.size % _PAGE:
            raise UsageError(f"{text}: expected whole pages of {_PAGE} bytes")
        if where.end > ADDRESS_SPACE:
            raise UsageError(f"{text}: wraps around the end of memory")
        return Place("memory", None, memory=where)
    return Place("file", found["disk"], found["folder"], found["type"])


def find_device(place: Place, root: Path = Path("/")) -> Path:
    """
    Return the device of a place.

    :param root: The folder with ``dev``.
    :raises TargetError: If there is no such device.
    """
    assert place.device is not None
    key, _, value = place.device.partition("=")
    path = root / place.device.removeprefix("/")
    if key in _LINKS:
        path = root / "dev/disk" / _LINKS[key] / value
    if not path.exists():
        raise TargetError(f"{place.device}: there is no such device ({path})")
    return path


def check_place(place: Place, root: Path = Path("/")) -> None:
    """
    Check that the crash kernel would find a place.

    :param root: The folder with ``dev``, ``proc`` and ``sys``.
    :raises KmemdumpError: If its device is not there, or its memory is in use.
    """
    if place.device is not None:
        find_device(place, root)
    if place.memory is not None:
        check_reserved_place(place.memory, root)


def find_copies(place: Place, root: Path = Path("/")) -> Iterator[Path | Range]:
    """
    Yield what a crash kernel may have left in a place, the newest first.

    :raises KmemdumpError: If its device is not there, or not mounted; if its memory
        cannot be read.
    """
    if place.kind == "raw":
        yield find_device(place, root)
    if place.memory is not None and has_copy(place.memory, root):
        yield place.memory
    if place.folder is None:
        return
    base = root
    if place.device is not None:
        base = _mounted(find_device(place, root), root)
    folder = base / place.folder.removeprefix("/")
    if folder.is_dir():
        copies = filter(None, map(_COPY.fullmatch, os.listdir(folder)))
        for copy in sorted(copies, key=lambda it: int(it[1]), reverse=True):
            yield folder / copy[0]


def _mounted(device: Path, root: Path) -> Path:
    status = device.stat()
    number = os.major(status.st_rdev), os.minor(status.st_rdev)
    for mount in read_mounts(root):
        if mount.device == number and mount.root == "/":
            return root / mount.place.removeprefix("/")
    raise TargetError(f"{device}: is not mounted\nmount it, to read what is there")
