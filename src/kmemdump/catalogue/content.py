# SPDX-License-Identifier: GPL-2.0-or-later
"""The bytes of a source: on this machine, and with the hash that identifies them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from kmemdump.catalogue.place import open_url
from kmemdump.catalogue.sources import Source
from kmemdump.errors import TargetError
from kmemdump.files import OpenFile

__all__ = ["Content", "fetched"]

_CHUNK = 1 << 20
_MAX_FILES = 4096
"""Files of a folder that is one dump."""
_SPARE = 256 << 20
"""Bytes of the disk for temporary files that a copy leaves free."""


@dataclass(frozen=True, slots=True)
class Content:
    """A source that was read."""

    path: str
    """Where it is on this machine."""
    hash: str
    """SHA-256, in hexadecimal."""
    size: int
    """In bytes."""


@contextmanager
def fetched(source: Source) -> Iterator[Content]:
    """
    Return a source's content; a copy of a remote one is removed afterwards.

    :raises TargetError: If it cannot be read, or there is no room for a copy.
    """
    if source.local:
        yield _local(source.name)
        return
    with TemporaryDirectory(prefix="kmemdump-") as folder:
        name = source.name.partition("::")[0].rstrip("/").rpartition("/")[2]
        # Some formats show in the ending of a name.
        yield _copied(source, os.path.join(folder, f"source-{name[-100:]}"))


def _local(path: str) -> Content:
    if not os.path.isdir(path):
        return _file(path)
    try:
        names = sorted(entry.name for entry in os.scandir(path) if entry.is_file())
    except OSError as error:
        raise TargetError(f"{path}: {error.strerror}") from error
    if len(names) > _MAX_FILES:
        raise TargetError(f"{path}: {len(names)} files, expected at most {_MAX_FILES}")
    digest = hashlib.sha256()
    size = 0
    for name in names:
        one = _file(os.path.join(path, name))
        digest.update(f"{one.hash} ".encode() + os.fsencode(name) + b"\n")
        size += one.size
    return Content(path, digest.hexdigest(), size)


def _file(path: str) -> Content:
    file = OpenFile(Path(path))
    try:
        digest = hashlib.sha256()
        size = 0
        while data := file.read(size, _CHUNK):
            digest.update(data)
            size += len(data)
        return Content(path, digest.hexdigest(), size)
    finally:
        file.close()


def _copied(source: Source, path: str) -> Content:
    fs, name = open_url(source.name)
    digest = hashlib.sha256()
    size = 0
    room = shutil.disk_usage(os.path.dirname(path)).free - _SPARE
    try:
        with fs.open(name, "rb") as remote, open(path, "wb") as file:
            while data := remote.read(_CHUNK):
                size += len(data)
                if size > room:
                    raise TargetError(
                        f"{source.name}: more than the {room} bytes that are free in "
                        f"{os.path.dirname(path)}\nset TMPDIR to a larger disk"
                    )
                digest.update(data)
                file.write(data)
    except TargetError:
        raise
    except Exception as error:  # Each file system has its own.
        reason = str(error).splitlines()[:1] or [type(error).__name__]
        raise TargetError(f"{source.name}: {reason[0]}") from error
    if not size:
        raise TargetError(f"{source.name}: is empty")
    return Content(path, digest.hexdigest(), size)
