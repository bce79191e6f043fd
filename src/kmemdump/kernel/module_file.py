# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of kernel modules: their names, and what compresses them."""

from __future__ import annotations

import lzma
import subprocess
import zlib
from pathlib import Path

from kmemdump.errors import UnsupportedError

__all__ = ["module_name", "read_module"]


def module_name(path: str) -> str:
    """Return the name that the kernel has for the module of a file."""
    return Path(path).name.partition(".")[0].replace("-", "_")


def read_module(path: Path) -> bytes:
    """
    Read a module, which may be compressed.

    :raises UnsupportedError: If it cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnsupportedError(f"{path}: {error.strerror}") from error
    try:
        if path.suffix == ".xz":
            return lzma.decompress(data)
        if path.suffix == ".gz":
            return zlib.decompress(data, 31)
    except (lzma.LZMAError, zlib.error) as error:
        raise UnsupportedError(f"{path}: is damaged: {error}") from error
    if path.suffix == ".zst":
        return _unzstd(path)
    return data


def _unzstd(path: Path) -> bytes:
    try:
        done = subprocess.run(
            ["zstd", "-dcq", str(path)], stdin=subprocess.DEVNULL, capture_output=True
        )
    except FileNotFoundError as error:
        raise UnsupportedError(f"{path}: zstd is not here; install it") from error
    if done.returncode:
        raise UnsupportedError(f"{path}: zstd cannot read it")
    return done.stdout
