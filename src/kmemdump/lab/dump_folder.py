# SPDX-License-Identifier: GPL-2.0-or-later
"""
The folder of files that simulated firmware leaves for a user: it replaces the one of
an earlier demonstration, and nothing else.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kmemdump.errors import OutputError
from kmemdump.folders import open_folder_of

__all__ = ["check_dump_folder", "new_dump_folder"]

_NAME = re.compile(r"md_[A-Za-z0-9_]{1,15}\.BIN")
_REGISTERS = "md_CPUS.BIN"
"""An ELF file of the simulated firmware; a phone's has its vendor's format."""


def check_dump_folder(path: Path) -> None:
    """
    Check that a folder may be replaced.

    :raises OutputError: If it is there, and no demonstration made it.
    """
    try:
        problem = _judge(path)
        os.close(open_folder_of(path)[0])  # No link of another user leads there.
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
    if problem is not None:
        raise OutputError(
            f"{path}: {problem}, expected nothing there, or the files of another "
            "demonstration\nname another folder: -o FOLDER"
        )


@contextmanager
def new_dump_folder(path: Path) -> Iterator[Path]:
    """
    Make a folder that gets its name once it is whole; what is there then is removed.

    :return: A path that does not exist, for the folder until then.
    :raises OutputError: If what is there may not be replaced, or the disk is full.
    """
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".dump-") as name:
            new, old = Path(name, "new"), Path(name, "old")
            yield new
            check_dump_folder(path)
            if path.exists():
                path.rename(old)
            new.rename(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def _judge(path: Path) -> str | None:
    """Return why a folder is not a demonstration's, if it is none."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISDIR(mode):
        return "is a link" if stat.S_ISLNK(mode) else "is no folder"
    with os.scandir(path) as entries:
        found = {it.name: it.is_file(follow_symlinks=False) for it in entries}
    for name, is_file in sorted(found.items()):
        if not is_file or _NAME.fullmatch(name) is None:
            return f"has {name!r}, which is not a demonstration's"
    if found and not _is_elf(path / _REGISTERS):
        return f"has no {_REGISTERS} of a demonstration"
    return None


def _is_elf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"\x7fELF"
    except FileNotFoundError:
        return False
