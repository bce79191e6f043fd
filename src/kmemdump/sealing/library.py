# SPDX-License-Identifier: GPL-2.0-or-later
"""The package that seals and unseals (an extra: ``seal``), and keys for it."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kmemdump.errors import UnsupportedError, UsageError
from kmemdump.installing import describe_extra
from kmemdump.text import printable

__all__ = ["keep_keys", "key_lines", "library", "panics_as"]

_MAX_KEYS = 1 << 20
"""Most bytes of a file of keys."""
_kept: list[mmap.mmap] = []
"""Keys from pipes. What is mapped is locked in memory with the process's own."""


def library() -> Any:
    """
    Return the package.

    :raises UnsupportedError: If it is not installed.
    """
    try:
        import pyrage
        import pyrage.ssh
        import pyrage.x25519
    except ImportError as error:
        raise UnsupportedError(
            f"sealing needs pyrage\ninstall it: {describe_extra('seal')}"
        ) from error
    return pyrage


@contextmanager
def panics_as(error: Exception) -> Iterator[None]:
    """
    Raise an error in place of a panic of the package, which is written in Rust.

    A panic is a ``BaseException``, which nothing else catches.
    """
    try:
        yield
    except BaseException as problem:
        if type(problem).__name__ == "PanicException":
            raise error from None
        raise


def keep_keys(path: Path) -> Path:
    """
    Return a path of the same keys that this process's children can read, too.

    A pipe, such as ``/dev/stdin``, gives them once; there may be several children.

    :raises UsageError: If it is a pipe that gives none, or too much.
    """
    try:
        if not stat.S_ISFIFO(path.stat().st_mode):
            return path
    except OSError:
        return path  # Its reader says why.
    data = _read(path)
    if not data:
        raise UsageError(f"{path}: gives nothing, expected keys")
    file = os.memfd_create("keys")
    os.ftruncate(file, len(data))
    mapped = mmap.mmap(file, len(data))
    mapped.write(data)
    _kept.append(mapped)
    return Path(f"/proc/{os.getpid()}/fd/{file}")


def key_lines(path: Path) -> Iterator[str]:
    """
    Yield the lines of a file of keys, without comments.

    It may be a pipe, such as ``/dev/stdin``.

    :raises UsageError: If it cannot be read, or is no text.
    """
    try:
        lines = _read(path).decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is no file of keys") from None
    for line in lines:
        if line.strip() and not line.startswith("#"):
            yield line.strip()


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_KEYS + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{printable(str(path))}: {why}") from error
    if len(data) > _MAX_KEYS:
        raise UsageError(f"{path}: more than {_MAX_KEYS} bytes, expected keys")
    return data
