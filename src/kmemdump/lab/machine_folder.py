# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine's folder: sockets, console and RAM file, gone with the machine."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from kmemdump.lab.commands import run
from kmemdump.lab.locked_folder import LockedFolder, remove_left

__all__ = ["MachineFolder", "copy_sparse", "dig_holes"]

_SHARED_MEMORY = Path("/dev/shm")


class MachineFolder(LockedFolder):
    """
    Make a folder in memory or, without room there, among temporary files.

    Python and QEMU both hold its descriptor, and so the lock.

    :param need: Bytes that must fit.
    """

    def __init__(self, need: int) -> None:
        parents = (_SHARED_MEMORY, Path(tempfile.gettempdir()))
        for parent in parents:  # The last machine may have been in the other one.
            remove_left(parent)
        # Containers often have only 64 MiB of it, and a full one kills with SIGBUS.
        fits = _SHARED_MEMORY.is_dir() and _room(_SHARED_MEMORY) > need
        super().__init__(parents[0] if fits else parents[1])


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
