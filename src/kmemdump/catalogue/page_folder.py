# SPDX-License-Identifier: GPL-2.0-or-later
"""Folders of pages, which are read while they are written, and may be others', too."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Self

from kmemdump.errors import OutputError
from kmemdump.files import is_own
from kmemdump.folders import open_folder
from kmemdump.targets import Closing

__all__ = ["PageFolder"]

_LEFT = re.compile(r"\..+\.html\.new(-[0-9a-f]{8})?")
"""What a writer that was killed leaves."""
_SETTLED = 3600
"""Seconds; a younger one may be being written."""


class PageFolder(Closing):
    """
    An open folder of pages. No link of another user's is followed where others write.

    :raises OutputError: If it is none, as all its methods if something fails.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        with self._translated(""):
            self._fd = open_folder(path)

    def folder(self, name: str) -> Self:
        """Return a folder in this one, which is made if it is not there."""
        with self._translated(name), suppress(FileExistsError):
            os.mkdir(name, dir_fd=self._fd)
        return type(self)(f"{self._path}/{name}")

    def has(self, name: str) -> bool:
        """Return whether there is such a page of this user's."""
        try:
            return is_own(os.stat(name, dir_fd=self._fd, follow_symlinks=False))
        except OSError:
            return False

    def put(self, name: str, data: bytes) -> None:
        """Write a page, which is there whole; not synced: it can be made again."""
        # Nobody can have made a link of this name, nor does another process use it.
        new = f".{name}.new-{os.urandom(4).hex()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with self._translated(name):
            fd = os.open(new, flags, 0o666, dir_fd=self._fd)
            try:
                with open(fd, "wb") as file:
                    file.write(data)
                os.replace(new, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            except BaseException:
                with suppress(OSError):
                    os.unlink(new, dir_fd=self._fd)
                raise

    def tidy(self, is_old: Callable[[str], bool] = lambda _: False) -> None:
        """Remove the pages with old names, and what killed writers left."""
        with self._translated(""):
            names = os.listdir(self._fd)
        for name in names:
            if is_old(name) or self._is_left(name):
                with self._translated(name):
                    os.unlink(name, dir_fd=self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _is_left(self, name: str) -> bool:
        if not _LEFT.fullmatch(name):
            return False
        with suppress(OSError):
            status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
            return time.time() - status.st_mtime > _SETTLED
        return False

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = f"{self._path}/{name}" if name else self._path
            raise OutputError(f"cannot write {where}: {error.strerror}") from error
