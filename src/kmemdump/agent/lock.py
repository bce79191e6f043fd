# SPDX-License-Identifier: GPL-2.0-or-later
"""One agent for each table: two would take each other's rows for a stranger's."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kmemdump.errors import TargetError, UnsupportedError

__all__ = ["holder", "table_lock"]


@contextmanager
def table_lock(folder: Path, name: str) -> Iterator[None]:
    """
    Hold a table for the body of a ``with`` statement.

    The kernel lets go of it when the process ends, however that happens.

    :param folder: Where agents leave their locks; made if it is not there.
    :param name: Of the table.
    :raises UnsupportedError: If another process holds it.
    :raises TargetError: If there is no place for the lock.
    """
    path = folder / f"{name}.lock"
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise TargetError(f"{path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _read_pid(fd) or "unknown"
            raise UnsupportedError(
                f"{name}: process {pid} keeps this table already\n"
                "'kmemdump status' tells of it; stop it first"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def holder(folder: Path, name: str) -> int | None:
    """Return the process that holds a table, or ``None``."""
    try:
        fd = os.open(folder / f"{name}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_pid(fd)
    finally:
        os.close(fd)
    return None


def _read_pid(fd: int) -> int | None:
    text = os.pread(fd, 20, 0).strip()
    return int(text) if text.isdigit() else None
