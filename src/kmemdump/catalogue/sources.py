# SPDX-License-Identifier: GPL-2.0-or-later
"""Sources: what stands for files, folders, patterns and URLs."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from kmemdump.catalogue.place import open_url
from kmemdump.errors import UsageError
from kmemdump.logs.pstore_folder import is_pstore_file

__all__ = ["Source", "find_file", "find_sources"]

_MAX_SOURCES = 10_000_000
_FIRMWARE = re.compile(r"md_.+\.bin", re.IGNORECASE)
"""Files of a folder that is one dump."""
_TIMES = ("mtime", "LastModified", "last_modified", "modified", "created")
"""What file systems of fsspec call the time of the last change."""


@dataclass(frozen=True, slots=True)
class Source:
    """Something that may say why a kernel died."""

    name: str
    """An absolute path, or a URL."""
    size: int | None = None
    """In bytes, if it could be learned."""
    modified: datetime | None = None
    """When it was last changed, if that is known."""
    local: bool = True
    """Whether *name* is a path on this machine."""


def find_sources(given: Iterable[str]) -> Iterator[Source]:
    """
    Yield the sources that paths, folders, patterns and URLs stand for.

    A folder stands for all files below it whose names do not begin with a dot; one that
    holds what a device's firmware left (md_*.BIN), or pstore, is itself a source. What
    is named and cannot be read is yielded, too.

    :raises UsageError: If a pattern stands for nothing, or all for too many.
    :raises TargetError: If a URL's file system cannot be used.
    """
    count = 0
    for text in given:
        fs, path = open_url(text)
        if isinstance(fs, LocalFileSystem):
            found = _local(text, fs, path)
        else:
            found = _remote(text, fs, path)
        for source in found:
            count += 1
            if count > _MAX_SOURCES:
                raise UsageError(f"more than {_MAX_SOURCES} sources")
            yield source


def find_missing(given: Iterable[str]) -> list[str]:
    """
    Return the paths of this machine that are not there.

    :raises TargetError: If a URL's file system cannot be used.
    """
    missing = []
    for text in given:
        fs, path = open_url(text)
        local = isinstance(fs, LocalFileSystem)
        if local and not os.path.lexists(path) and not _is_pattern(path):
            missing.append(text)
    return missing


def _local(text: str, fs: Any, path: str) -> Iterator[Source]:
    if not os.path.lexists(path) and _is_pattern(path):
        names = sorted(fs.glob(path))
        if not names:
            raise UsageError(f"{text}: no file matches")
    else:
        names = [path]
    for name in names:
        if os.path.isdir(name):
            yield from _below(name)
        else:
            yield find_file(name)


def _below(folder: str) -> Iterator[Source]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if any(map(_is_part, names)):
            folders.clear()
            yield Source(parent)
            continue
        for name in sorted(names):
            path = os.path.join(parent, name)
            # A folder is full of other things; what a person names is told about.
            if not name.startswith(".") and os.path.isfile(path):
                yield find_file(path)


def _is_part(name: str) -> bool:
    """Return whether a file is a part of a dump or log that is a folder."""
    return bool(_FIRMWARE.fullmatch(name)) or is_pstore_file(Path(name))


def find_file(path: str) -> Source:
    """Return a file of this machine as a source, whether or not it can be read."""
    path = os.path.abspath(path)
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return Source(path)
    if not stat.S_ISREG(status.st_mode):
        return Source(path)
    return Source(path, status.st_size, _time(status.st_mtime_ns // 1000 / 1e6))


def _remote(text: str, fs: Any, path: str) -> Iterator[Source]:
    found: dict[str, dict[str, Any]]
    try:
        if _is_pattern(path):
            found = fs.glob(path, detail=True)
        elif fs.isdir(path):
            found = fs.find(path, detail=True)
        else:
            found = {path: fs.info(path)}
    except Exception:  # Each file system has its own.
        yield Source(text, local=False)  # Reading it says why.
        return
    if not found:
        raise UsageError(f"{text}: no file matches")
    for name, entry in sorted(found.items()):
        if entry.get("type", "file") == "file":
            full = text if name == path else _full_url(text, fs, name)
            size = entry.get("size")
            yield Source(full, size, _modified(entry), local=False)


def _full_url(text: str, fs: Any, name: str) -> str:
    """Return the URL of a file; of a chain (zip://NAME::URL), with the same rest."""
    first, chain, rest = text.partition("::")
    protocol = first.partition("://")[0]
    if not chain:
        url: str = fs.unstrip_protocol(name)
        return url
    return f"{protocol}://{name}::{rest}"


def _modified(entry: dict[str, Any]) -> datetime | None:
    for key in _TIMES:
        value = entry.get(key)
        if isinstance(value, int | float) and value >= 0:
            return _time(value)
        if isinstance(value, datetime):
            return value.astimezone(UTC)
    return None


def _time(seconds: float) -> datetime | None:
    """Return a time; None if no calendar has it."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _is_pattern(path: str) -> bool:
    return any(character in path for character in "*?[")
