# SPDX-License-Identifier: GPL-2.0-or-later
"""
A machine's folder: sockets, console and RAM file, gone with the machine.

The folder is locked as long as any process holds its file descriptor. Python
and QEMU both hold it, so an unlocked folder is left over from killed processes,
and the next machine removes it. Otherwise a killed test run would leave a gigabyte
of a guest's memory in /dev/shm.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from kmemdump.lab.apt import run

__all__ = ["MachineFolder", "copy_sparse", "dig_holes"]

_PREFIX = "kmemdump-lab-"
_SHARED_MEMORY = Path("/dev/shm")
_SETTLED = 60  # Seconds; a younger folder may not be locked yet.


class MachineFolder:
    """
    Make a folder in memory or, without room there, among temporary files.

    :param need: Bytes that must fit.
    """

    def __init__(self, need: int) -> None:
        parent = Path(tempfile.gettempdir())
        # Containers often have only 64 MiB of it, and a full one kills with SIGBUS.
        if _SHARED_MEMORY.is_dir() and shutil.disk_usage(_SHARED_MEMORY).free > need:
            parent = _SHARED_MEMORY
        _sweep(parent)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        self.descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        """To be inherited by each process that uses the folder."""
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.descriptor)


def _sweep(parent: Path) -> None:
    for path in parent.glob(f"{_PREFIX}*"):
        try:
            if time.time() - path.stat().st_mtime < _SETTLED:
                continue
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # Gone by now, or another user's.
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(descriptor)


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file with holes where it is zero: a guest's RAM mostly is."""
    run("cp", "--sparse=always", "--", str(source), str(target))


def dig_holes(path: Path) -> None:
    """
    Free what a file takes for zeros, where its file system can.

    :param path: No other process may write to the file.
    """
    subprocess.run(["fallocate", "--dig-holes", "--", str(path)], capture_output=True)
