# SPDX-License-Identifier: GPL-2.0-or-later
"""
A folder of md_*.BIN files, as qdl, edl, Qualcomm's splitter and this tool leave it.

Some tools leave a list beside them that has the addresses: ``dump_info.txt`` or
``load.cmm``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from kmemdump.errors import TargetError
from kmemdump.firmware_dumps.assemble import Collected, assemble
from kmemdump.firmware_dumps.fragments import FileSet, FileStore, Piece
from kmemdump.firmware_dumps.names import MAX_FILES, is_piece, label_of, list_files

__all__ = ["INFO_NAME", "collect_folder", "info_line", "parse_list"]

INFO_NAME = "dump_info.txt"
"""List of addresses, sizes and names of files."""

_MAX_LIST = 1 << 20
_INFO_LINE = re.compile(
    r"\s*\d+\s+0x([0-9a-f]{1,16})\s+(\d{1,20})\s(?:.*[\s/\\])?([^\s/\\]+)\s*",
    re.IGNORECASE,
)
_CMM_LINE = re.compile(
    r"\s*d\.load\.binary\s+([^\s/\\]+)\s+0x([0-9a-f]{1,16})\b.*", re.IGNORECASE
)

_Places = dict[str, tuple[int, int | None]]
"""File name to address and size."""


def collect_folder(folder: Path) -> Collected:
    """
    Put together what is in a folder.

    :raises TargetError: If there is nothing that firmware would leave.
    """
    problems: list[str] = []
    sizes = list_files(folder)
    places = _read_places(folder, sizes, problems)
    names = sorted(name for name in sizes if is_piece(name) or name in places)
    if not names:
        raise TargetError(
            f"{folder}: is a directory without md_*.BIN files, expected what a "
            "device's firmware left"
        )
    if len(names) > MAX_FILES:
        raise TargetError(
            f"{folder}: {len(names)} files, expected at most {MAX_FILES} regions"
        )
    files = FileSet()
    pieces = []
    for name in names:
        address, size = places.get(name, (None, None))
        store = FileStore(files, os.path.join(folder, name), 0, sizes[name])
        pieces.append(Piece(label_of(name), store, address, size))
    for name in places.keys() - sizes.keys():
        problems.append(f"{name} is in the list of files, but not in the folder")
        address, size = places[name]
        if size:
            store = FileStore(files, os.path.join(folder, name), 0, 0)
            pieces.append(Piece(label_of(name), store, address, size))
    try:
        return assemble(str(folder), pieces, files=files, problems=problems)
    except BaseException:
        files.close()
        raise


def info_line(name: str, address: int, size: int) -> str:
    """Return the line of a file in :data:`INFO_NAME`."""
    return f"1 0x{address:016x}\t{size:016d}\t{name:>20}\t{name}\r\n"


def _read_places(folder: Path, sizes: dict[str, int], problems: list[str]) -> _Places:
    places: _Places = {}
    doubtful: set[str] = set()
    for name in sizes:
        if name.lower() in (INFO_NAME, "load.cmm"):
            for file, address, size in parse_list(_read_list(folder / name)):
                known = places.setdefault(file, (address, size))
                if known[0] != address:
                    doubtful.add(file)
                elif known[1] is None:
                    places[file] = address, size
    for file in sorted(doubtful):
        # Of regions with one name, the last one has overwritten the others.
        problems.append(f"{file} is listed with several addresses: none is used")
        del places[file]
    return places


def _read_list(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_LIST)
    except OSError as error:
        raise TargetError(f"{path}: {error.strerror}") from error


def parse_list(data: bytes) -> Iterator[tuple[str, int, int | None]]:
    """
    Parse a list of files; lines that are none are passed over.

    :return: Name, physical address, and size if the list has it, both in bytes.
    """
    for line in data.decode("latin-1").splitlines():
        if match := _INFO_LINE.fullmatch(line):
            yield match[3], int(match[1], 16), int(match[2])
        elif match := _CMM_LINE.fullmatch(line):
            yield match[1], int(match[2], 16), None
