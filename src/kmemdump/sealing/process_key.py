# SPDX-License-Identifier: GPL-2.0-or-later
"""A pair of keys that only this process has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from kmemdump.errors import UnsupportedError
from kmemdump.sealing.library import library

__all__ = ["ProcessKey", "process_key"]


class ProcessKey(NamedTuple):
    """A pair of keys."""

    public: str
    identity: Path
    """File of the private one, in memory."""


@contextmanager
def process_key() -> Iterator[ProcessKey | None]:
    """
    Make a pair of keys for what this process seals, or has sealed, and reads again.

    It is gone after the ``with`` statement.

    :return: ``None`` if the package that seals is not installed.
    """
    try:
        pyrage = library()
    except UnsupportedError:
        yield None
        return
    pair = pyrage.x25519.Identity.generate()
    fd = os.memfd_create("kmemdump-key", os.MFD_CLOEXEC)
    try:
        os.write(fd, f"{pair}\n".encode())
        yield ProcessKey(str(pair.to_public()), Path(f"/proc/self/fd/{fd}"))
    finally:
        os.close(fd)
