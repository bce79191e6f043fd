# SPDX-License-Identifier: GPL-2.0-or-later
"""
The places that a crash kernel writes to, as this kernel sees them.

``kdump/sinks.c`` and ``kdump/files.c`` read the same words.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from kmemdump.crash_kernel.reserved import check_reserved_place, has_copy
from kmemdump.errors import TargetError, UsageError
from kmemdump.memory.ranges import ADDRESS_SPACE, Range
from kmemdump.proc.mounts import read_mounts

__all__ = ["Place", "check_place", "find_copies", "find_device", "parse_place"]

_PLACE = re.compile(
    r"(?P<kind>raw|console):(?P<device>\S+)"
    r"|memory:(?P<at>0x[0-9a-f]{1,16}|[0-9]{1,20})"
    r":(?P<size>0x[0-9a-f]{1,16}|[0-9]{1,20})"
    r"|as:(?P<file>/\S+)"
    r"|file:(?P<folder>/[^\s@]*)(?:@(?P<type>[A-Za-z0-9_.-]+):(?P<disk>\S+))?"
)
_PAGE = 4096
_LINKS = {"PARTLABEL": "by-partlabel", "PARTUUID": "by-partuuid"}
_COPY = re.compile(r"kmemdump-([0-9]{1,20})(?:-([0-9]{1,3}))?\.elf")
"""With the time of death; and a number, if there was one of that time."""


class Place(NamedTuple):
    """A place for core images."""

    kind: str
    """``raw``, ``memory``, ``console``, ``file`` or ``as``."""
    device: str | None
    """A path, ``PARTLABEL=…`` or ``PARTUUID=…``; ``None`` for what is mounted."""
    folder: str | None = None
    """In the device's file system."""
    file_system: str | None = None
    memory: Range | None = None
    """Reserved memory."""
    file: str | None = None
    """A file in what is mounted, for ``as``."""

    def __str__(self) -> str:
        named = self.device or self.folder or self.file
        return named or str(self.memory or self.kind)


def parse_place(text: str) -> Place:
    """
    Parse a place as a user names it.

    :raises UsageError: If it is none.
    """
    found = _PLACE.fullmatch(text)
    if found is None:
        raise UsageError(
            f"{text}: expected file:FOLDER@FSTYPE:DEVICE, as:FILE, raw:DEVICE, "
            "memory:ADDRESS:SIZE or console:DEVICE"
        )
    if found["kind"]:
        return Place(found["kind"], found["device"])
    if found["at"]:
        where = Range(_number(found["at"]), _number(found["size"]))
        if not where.size or where.start % _PAGE or where.size % _PAGE:
            raise UsageError(f"{text}: expected whole pages of {_PAGE} bytes")
        if where.end > ADDRESS_SPACE:
            raise UsageError(f"{text}: wraps around the end of memory")
        return Place("memory", None, memory=where)
    if found["file"]:
        return Place("as", None, file=found["file"])
    return Place("file", found["disk"], found["folder"], found["type"])


def _number(text: str) -> int:
    return int(text, 16 if text.startswith("0x") else 10)


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
    if place.file is not None:
        path = root / place.file.removeprefix("/")
        if path.is_file():
            yield path
    if place.folder is None:
        return
    base = root
    if place.device is not None:
        base = _mounted(find_device(place, root), root)
    folder = base / place.folder.removeprefix("/")
    if folder.is_dir():
        yield from _copies_in(folder)


def _copies_in(folder: Path) -> list[Path]:
    """Return the copies in a folder, the newest first."""
    copies = []
    with os.scandir(folder) as entries:
        for entry in entries:
            found = _COPY.fullmatch(entry.name)
            if found is None:
                continue
            with suppress(FileNotFoundError):
                changed = entry.stat(follow_symlinks=False).st_mtime_ns
                age = int(found[1]), changed, int(found[2] or 0)
                copies.append((age, folder / entry.name))
    return [path for _, path in sorted(copies, reverse=True)]


def _mounted(device: Path, root: Path) -> Path:
    status = device.stat()
    number = os.major(status.st_rdev), os.minor(status.st_rdev)
    for mount in read_mounts(root):
        if mount.device == number and mount.root == "/":
            return root / mount.place.removeprefix("/")
    raise TargetError(f"{device}: is not mounted\nmount it, to read what is there")
