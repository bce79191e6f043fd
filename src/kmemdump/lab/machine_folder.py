# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine's folder: sockets, console and RAM file, gone with the machine."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from kmemdump.errors import UnsupportedError
from kmemdump.lab.commands import run
from kmemdump.locked_folder import NAME_LENGTH, LockedFolder, remove_left

__all__ = ["MachineFolder", "copy_sparse", "dig_holes"]

_SHARED_MEMORY = Path("/dev/shm")
_LONGEST = 107 - len("//qmp") - NAME_LENGTH
"""Bytes of a path in which a machine's folder, and in that its socket, still fit."""


class MachineFolder(LockedFolder):
    """
    Make a folder in memory or, without room there, among temporary files.

    Python and QEMU both hold its descriptor, and so the lock.

    :param need: Bytes that must fit.
    :raises UnsupportedError: If there is no such place.
    """

    def __init__(self, need: int) -> None:
        temporary = Path(tempfile.gettempdir())
        for parent in (_SHARED_MEMORY, temporary):  # Not only where this one goes.
            remove_left(parent)
        super().__init__(_choose(temporary, need))
        self.need = need


def _choose(temporary: Path, need: int) -> Path:
    # Containers often have only 64 MiB of it, and a full one kills with SIGBUS.
    if _SHARED_MEMORY.is_dir() and _room(_SHARED_MEMORY) > need:
        return _SHARED_MEMORY
    full = f"{_SHARED_MEMORY} has no room for {need >> 20} MiB of a machine"
    if _room(temporary) <= need:
        raise UnsupportedError(
            f"{full}, nor has {temporary}; TMPDIR names another folder"
        )
    if (length := len(os.fsencode(temporary))) > _LONGEST:
        raise UnsupportedError(
            f"{full}, and the path {temporary} is too long for its sockets: {length} "
            f"bytes, expected at most {_LONGEST}; TMPDIR names another folder"
        )
    return temporary


def _room(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file with holes where it is zero: a guest's RAM mostly is."""
    run("cp", "--sparse=always", "--", str(source), str(target))


def dig_holes(path: Path) -> None:
    """
    Free what a file takes for zeros, where its file system can.

    :param path: No other process may write to the file.
    """
    subprocess.run(["fallocate", "--dig-holes", "--", str(path)], capture_output=True)
