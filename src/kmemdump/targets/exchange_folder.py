# SPDX-License-Identifier: GPL-2.0-or-later
"""A folder in which another process, maybe in a root of its own, leaves a file."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from kmemdump.errors import TargetError

__all__ = ["ExchangeFolder", "exchange_folder"]

_PLACES = ("tmp", "run", "dev/shm", "")
"""Where a folder may be made, in the root of the other process."""
_MAX_FILE = 64 << 20
_MAX_NAMES = 100
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class ExchangeFolder:
    """The folder."""

    path: str
    """As the other process sees it."""
    fd: int

    def read(self, name: str) -> bytes:
        """
        Read a file that the other process has left.

        :raises TargetError: If it is not there, or not one.
        """
        try:
            fd = os.open(name, _FLAGS | os.O_NONBLOCK, dir_fd=self.fd)
        except OSError as error:
            raise TargetError(f"{self.path}/{name}: {error.strerror}") from error
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_FILE:
                raise TargetError(
                    f"{self.path}/{name}: {status.st_size} bytes, expected a file of "
                    f"at most {_MAX_FILE}"
                )
            return file.read(_MAX_FILE)


@contextmanager
def exchange_folder(pid: int, process: int) -> Iterator[ExchangeFolder]:
    """
    Make a folder that only one other process's user can use; remove it afterwards.

    :param pid: Of the other process.
    :param process: Its folder in /proc.
    :raises TargetError: If there is no place for it.
    """
    name = f"kmemdump-{secrets.token_hex(8)}"
    with ExitStack() as opened:

        def keep(fd: int) -> int:
            opened.callback(os.close, fd)
            return fd

        try:
            owner = _owner(process)
            flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
            root = keep(os.open("root", flags, dir_fd=process))
            place, parent = _make(root, name, keep)
            opened.callback(_remove, parent, name)
            folder = keep(os.open(name, _FLAGS | os.O_DIRECTORY, dir_fd=parent))
            os.fchmod(folder, 0o700)
            if owner[0] != os.geteuid():
                os.fchown(folder, *owner)
        except OSError as error:
            raise TargetError(
                f"process {pid}: no folder to exchange a file in: {error.strerror}"
            ) from error
        yield ExchangeFolder(f"/{place}/{name}".replace("//", "/"), folder)


def _owner(process: int) -> tuple[int, int]:
    """Return the user and group by which a process makes files."""
    found = {"Uid": 0, "Gid": 0}
    with open(os.open("status", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)) as file:
        for line in file:
            key, _, rest = line.partition(":")
            if key in found:
                found[key] = int(
                    rest.split()[3]
                )  # Real, effective, saved, file system.
    return found["Uid"], found["Gid"]


def _make(root: int, name: str, keep: object) -> tuple[str, int]:
    """Make a folder in one of the places; return the place, and its descriptor."""
    assert callable(keep)
    problem = OSError(0, "no place for it")
    for place in _PLACES:
        try:
            parent = root
            for part in filter(None, place.split("/")):
                # A link there could lead out of the other's root.
                flags = _FLAGS | os.O_DIRECTORY
                parent = keep(os.open(part, flags, dir_fd=parent))
            os.mkdir(name, 0o700, dir_fd=parent)
        except OSError as error:
            problem = error
            continue
        return place, parent
    raise problem


def _remove(parent: int, name: str) -> None:
    with contextlib.suppress(OSError):
        folder = os.open(name, _FLAGS | os.O_DIRECTORY, dir_fd=parent)
        try:
            for entry in os.listdir(folder)[:_MAX_NAMES]:
                with contextlib.suppress(OSError):
                    try:
                        os.unlink(entry, dir_fd=folder)
                    except IsADirectoryError:
                        os.rmdir(entry, dir_fd=folder)
        finally:
            os.close(folder)
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=parent)
