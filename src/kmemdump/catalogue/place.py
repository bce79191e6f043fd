# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a catalogue is: a folder, or whatever else fsspec has a URL for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from kmemdump.errors import OutputError, TargetError
from kmemdump.files import PartialFile

__all__ = ["Place", "open_url"]


def open_url(url: str) -> tuple[Any, str]:
    """
    Return the file system of a path or URL, and the path in it.

    What is there as a path is one: fsspec would take a stranger's file of the name
    ``reference::NAME`` for a URL, and NAME for a list of what to read from anywhere.

    :raises TargetError: If there is none, or what it needs is not installed.
    """
    if os.path.lexists(url):
        return LocalFileSystem(), os.path.abspath(url)
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except Exception as error:  # Each file system has its own.
        reason = str(error).splitlines()[:1] or [type(error).__name__]
        raise TargetError(f"{url}: {reason[0]}") from error
    return fs, path


class Place:
    """
    A folder of files that are written whole and then never changed.

    :param url: A path, or a URL as fsspec has it (``s3://bucket/deaths``).
    :raises TargetError: If there is no such file system.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.fs, root = open_url(url)
        self._root = root.rstrip("/")
        self.local = isinstance(self.fs, LocalFileSystem)

    def list(self, folder: str) -> dict[str, int]:
        """
        Return the names of files in a folder, and their sizes in bytes.

        :raises TargetError: If it cannot be listed.
        """
        with self._translated(folder):
            try:
                found = self.fs.ls(self._path(folder), detail=True, refresh=True)
            except FileNotFoundError:
                return {}
        return {
            entry["name"].rstrip("/").rpartition("/")[2]: int(entry.get("size") or 0)
            for entry in found
            if entry.get("type") == "file"
        }

    def exists(self) -> bool:
        """Return whether anything is there."""
        with self._translated(""):
            return bool(self.fs.exists(self._root))

    def read(self, name: str, limit: int) -> bytes | None:
        """
        Return a file's content; None if there is none.

        :param limit: Bytes that it may have.
        :raises TargetError: If it cannot be read, is larger, or is no file.
        """
        path = self._path(name)
        with self._translated(name):
            try:
                about = self.fs.info(path)
                is_file = about.get("type") == "file"
                # Of a FIFO, nothing may ever come.
                data: bytes = self.fs.cat_file(path, 0, limit + 1) if is_file else b""
            except FileNotFoundError:
                return None
        if not is_file:
            raise TargetError(f"{self.url_of(name)}: is no file")
        if len(data) > limit:
            raise TargetError(f"{self.url_of(name)}: more than {limit} bytes")
        return data

    def write(self, name: str, data: bytes) -> None:
        """
        Write a file, which is there whole or not at all.

        :raises OutputError: If it cannot be written.
        """
        path = self._path(name)
        if self.local:
            folder = os.path.dirname(path)
            try:
                os.makedirs(folder, mode=0o700, exist_ok=True)
            except OSError as error:
                raise OutputError(f"cannot make {folder}: {error.strerror}") from error
            with PartialFile(path) as file:
                file.write(data)
            return
        try:
            # An object store shows an object once it is whole.
            self.fs.pipe_file(path, data)
        except Exception as error:  # Each file system has its own.
            raise OutputError(f"cannot write {self._full(path)}: {error}") from error

    def put(self, name: str, source: Path) -> None:
        """
        Copy a file of this machine, which is then there whole or not at all.

        :raises OutputError: If it cannot be written.
        """
        if self.local:
            with source.open("rb") as file, PartialFile(self._path(name)) as output:
                shutil.copyfileobj(file, output)
            return
        try:
            self.fs.put_file(str(source), self._path(name))
        except Exception as error:  # Each file system has its own.
            raise OutputError(f"cannot write {self.url_of(name)}: {error}") from error

    def remove(self, name: str) -> None:
        """
        Remove a file, which may be gone already.

        :raises TargetError: If it cannot be removed.
        """
        with self._translated(name):
            try:
                self.fs.rm_file(self._path(name))
            except FileNotFoundError:
                return

    def url_of(self, name: str) -> str:
        """Return a file's path, or its URL if it is not a file of this machine."""
        path = self._path(name)
        return path if self.local else self._full(path)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _full(self, path: str) -> str:
        url: str = self.fs.unstrip_protocol(path)
        return url

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Each file system has its own.
            reason = getattr(error, "strerror", None) or error or type(error).__name__
            raise TargetError(f"{self.url_of(name)}: {reason}") from error
