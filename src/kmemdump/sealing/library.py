# SPDX-License-Identifier: GPL-2.0-or-later
"""The package that seals and unseals (an extra: ``seal``), and keys for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kmemdump.errors import UnsupportedError, UsageError
from kmemdump.installing import describe_extra
from kmemdump.text import printable

__all__ = ["key_lines", "library"]

_MAX_KEYS = 1 << 20
"""Most bytes of a file of keys."""


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


def key_lines(path: Path) -> Iterator[str]:
    """
    Yield the lines of a file of keys, without comments.

    It may be a pipe, such as ``/dev/stdin``.

    :raises UsageError: If it cannot be read, or is no text.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_KEYS + 1)
        lines = data.decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is no file of keys") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{printable(str(path))}: {why}") from error
    if len(data) > _MAX_KEYS:
        raise UsageError(f"{path}: more than {_MAX_KEYS} bytes, expected keys")
    for line in lines:
        if line.strip() and not line.startswith("#"):
            yield line.strip()
