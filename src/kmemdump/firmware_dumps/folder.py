# SPDX-License-Identifier: GPL-2.0-or-later
"""
A folder of md_*.BIN files, as qdl, edl, Qualcomm's splitter and kmemdump leave it.

Some tools leave a list of the files' addresses beside them: ``dump_info.txt`` or
``load.cmm``.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from kmemdump.errors import TargetError
from kmemdump.firmware_dumps.assemble import FirmwareDump, assemble
from kmemdump.firmware_dumps.banks import find_banks, place_banks
from kmemdump.firmware_dumps.fragments import (
    FileContents,
    Fragment,
    OpenFiles,
    label_of,
)

__all__ = ["INFO_NAME", "collect_folder", "info_line", "parse_list"]

INFO_NAME = "dump_info.txt"
"""The list of the files' addresses, sizes and names."""
LISTS = (INFO_NAME, "load.cmm")

_MAX_FILES = 1024
"""More regions than any firmware has room for."""
_MAX_ENTRIES = 100_000
_MAX_LIST = 1 << 20
_INFO_LINE = re.compile(
    r"\s*\d+\s+0x([0-9a-f]{1,16})\s+(\d{1,20})\s(?:.*[\s/\\])?([^\s/\\]+)\s*",
    re.IGNORECASE,
)
_CMM_LINE = re.compile(
    r"\s*d\.load\.binary\s+([^\s/\\]+)\s+0x([0-9a-f]{1,16})\b.*", re.IGNORECASE
)

_Listed = dict[str, tuple[int, int | None]]
"""File name to address and size."""


def collect_folder(folder: Path) -> FirmwareDump:
    """
    Put together the files in a folder.

    :raises TargetError: If it has no md_*.BIN files.
    """
    problems: list[str] = []
    sizes = _list_files(folder)
    listed = _read_lists(folder, sizes, problems)
    names = sorted(name for name in sizes if _is_dumped(name) or name in listed)
    if not names:
        return _collect_banks(folder, sizes)
    if len(names) > _MAX_FILES:
        raise TargetError(
            f"{folder}: {len(names)} files, expected at most {_MAX_FILES} regions"
        )
    files = OpenFiles()
    fragments = []
    absent = listed.keys() - sizes.keys()
    for name in absent:
        problems.append(f"{name} is in the list of files and not in the folder")
    for name in [*names, *absent]:
        address, size = listed.get(name, (None, None))
        if name in sizes or size:
            held = sizes.get(name, 0)
            contents = FileContents(files, os.path.join(folder, name), 0, held)
            fragments.append(Fragment(label_of(name), contents, address, size))
    # A dump of all memory has no table of regions, so none that describes them.
    described = any(map(_is_dumped, (*names, *absent)))
    try:
        return assemble(
            str(folder),
            fragments,
            files=files,
            problems=problems,
            described=described,
        )
    except BaseException:
        files.close()
        raise


def _collect_banks(folder: Path, sizes: dict[str, int]) -> FirmwareDump:
    """Put together the files of all memory, by what the kernel in them proves."""
    banks = find_banks(sizes)
    if not banks:
        raise TargetError(
            f"{folder}: no md_*.BIN files in it, expected what a device's firmware left"
        )
    problems: list[str] = []
    files = OpenFiles()
    try:
        fragments = place_banks(files, folder, banks, problems)
        if fragments:
            return assemble(
                str(folder), fragments, files=files, problems=problems, described=False
            )
    except BaseException:
        files.close()
        raise
    files.close()
    first = min(banks)
    raise TargetError(
        f"{folder}: {first} and {len(banks) - 1} more files of all memory have no "
        f"addresses, expected them in {' or '.join(LISTS)} beside the files, or one "
        "kernel that proves them\n"
        "copy the list from where the files come from"
    )


def info_line(name: str, address: int, size: int) -> str:
    """Return the line of a file in :data:`INFO_NAME`."""
    return f"1 0x{address:016x}\t{size:016d}\t{name:>20}\t{name}\r\n"


def _is_dumped(file_name: str) -> bool:
    """Return whether firmware named the file: ``md_Klog.BIN``."""
    return file_name.startswith("md_") and file_name.lower().endswith(".bin")


def _list_files(folder: Path) -> dict[str, int]:
    """Return the sizes of the regular files in a folder, in bytes."""
    sizes = {}
    try:
        with os.scandir(folder) as entries:
            for i, entry in enumerate(entries):
                if i == _MAX_ENTRIES:
                    raise TargetError(f"{folder}: more than {_MAX_ENTRIES} files")
                status = entry.stat() if not entry.is_symlink() else None
                if status is not None and stat.S_ISREG(status.st_mode):
                    sizes[entry.name] = status.st_size
    except OSError as error:
        raise TargetError(f"{folder}: {error.strerror}") from error
    return sizes


def _read_lists(folder: Path, sizes: dict[str, int], problems: list[str]) -> _Listed:
    listed: _Listed = {}
    doubtful: set[str] = set()
    folded: dict[str, list[str]] = {}
    for name in sizes:
        folded.setdefault(name.lower(), []).append(name)
    for name in sizes:
        if name.lower() in LISTS:
            for listed_as, address, size in parse_list(_read_list(folder / name)):
                # The case of a name may differ from that in the list.
                alike = folded.get(listed_as.lower(), ())
                only = alike[0] if len(alike) == 1 else listed_as
                file = listed_as if listed_as in sizes else only
                known = listed.setdefault(file, (address, size))
                if known[0] != address:
                    doubtful.add(file)
                elif known[1] is None:
                    listed[file] = address, size
    for file in sorted(doubtful):
        # Of regions with the same name, only the last one is still in the file.
        problems.append(f"{file} is listed with several addresses: none is used")
        del listed[file]
    return listed


def _read_list(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_LIST)
    except OSError as error:
        raise TargetError(f"{path}: {error.strerror}") from error


def parse_list(data: bytes) -> Iterator[tuple[str, int, int | None]]:
    """
    Parse a list of files; other lines are skipped.

    :return: Name, physical address, and size if the list has it, both in bytes.
    """
    for line in data.decode("latin-1").splitlines():
        if match := _INFO_LINE.fullmatch(line):
            yield match[3], int(match[1], 16), int(match[2])
        elif match := _CMM_LINE.fullmatch(line):
            yield match[1], int(match[2], 16), None
