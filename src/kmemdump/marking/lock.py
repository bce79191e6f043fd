# SPDX-License-Identifier: GPL-2.0-or-later
"""Lock a table, since two processes would each take the other's rows for foreign."""

from __future__ import annotations

import fcntl
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kmemdump.errors import TargetError, UnsupportedError

__all__ = ["lock_holder", "lock_table", "table_name"]

_LOCK = struct.Struct("@hhqqi0q")
"""``struct flock``: type, whence, start, length, process (man fcntl)."""
_WHOLE_FILE = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


def table_name(target: str, backend: str, address: int) -> str:
    """
    Return a name for a machine's table, to be used in file names.

    :param target: Name of the machine.
    :param address: Physical address of the table in the machine.
    """
    machine = re.sub(r"[^A-Za-z0-9.]+", "-", target.removeprefix("qmp:"))
    return f"{machine.strip('-')[-80:]}-{backend}-{address:x}"


@contextmanager
def lock_table(folder: Path | None, name: str) -> Iterator[None]:
    """
    Lock a table for the body of a ``with`` statement.

    The kernel unlocks it when the process ends, however that happens.

    :param folder: For locks; made if it is missing. ``None`` locks nothing.
    :param name: See :func:`table_name`.
    :raises UnsupportedError: If another process has locked it.
    :raises TargetError: If the lock cannot be made.
    """
    if folder is None:
        yield
        return
    path = folder / f"{name}.lock"
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        os.fchmod(fd, 0o600)  # Who can read a file can lock it.
    except OSError as error:
        raise TargetError(f"{path}: {error.strerror}") from error
    try:
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _WHOLE_FILE)
        except BlockingIOError:
            pid = _read_pid(fd) or "unknown"
            raise UnsupportedError(
                f"{name}: process {pid} already writes to this table\n"
                "'kmemdump status' shows it; stop it first"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def lock_holder(folder: Path, name: str) -> int | None:
    """Return the id of the process that has locked a table, or ``None``."""
    try:
        fd = os.open(folder / f"{name}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # This asks for the lock, and does not take it.
        kind, *_ = _LOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _WHOLE_FILE))
        return None if kind == fcntl.F_UNLCK else _read_pid(fd)
    finally:
        os.close(fd)


def _read_pid(fd: int) -> int | None:
    text = os.pread(fd, 20, 0).strip()
    return int(text) if text.isdigit() else None
