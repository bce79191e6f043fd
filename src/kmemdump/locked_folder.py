# SPDX-License-Identifier: GPL-2.0-or-later
"""
Temporary folders that killed processes do not leave for good.

Such a folder is locked as long as any process holds its file descriptor. An unlocked
one is left over; the next process that makes one beside it removes it. Without this,
killed checks would fill a folder of core images, and killed tests /dev/shm.
"""

import fcntl
import os
import re
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

__all__ = ["NAME_LENGTH", "LockedFolder", "remove_left"]

_PREFIX = ".kmemdump-locked-"
NAME_LENGTH = len(_PREFIX) + 8
"""Bytes of a folder's name."""
_NAME = re.compile(re.escape(_PREFIX) + "[a-z0-9_]{8}")  # As mkdtemp() makes them.
_SETTLED = 60  # Seconds; a younger folder may not be locked yet.


class LockedFolder:
    """
    A new temporary folder, gone with the ``with`` statement, which yields its path.

    :param parent: Where it is made, and what killed processes left is removed.
    """

    def __init__(self, parent: Path) -> None:
        remove_left(parent)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        self.descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        """To be inherited by each process that uses the folder after this one."""
        # Some file systems have no such locks: there, what is left stays.
        with suppress(OSError):
            fcntl.flock(self.descriptor, fcntl.LOCK_SH)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.descriptor)


def remove_left(parent: Path) -> None:
    """Remove this user's locked folders that no process holds any more."""
    with suppress(OSError):
        for name in filter(_NAME.fullmatch, os.listdir(parent)):
            _remove_unlocked(parent / name)


def _remove_unlocked(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # Gone by now, no folder, or another user's.
        return
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or time.time() - status.st_mtime < _SETTLED:
            return
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(descriptor)
