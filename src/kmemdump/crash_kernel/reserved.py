# SPDX-License-Identifier: GPL-2.0-or-later
"""
Reserved memory that a crash kernel copied to, and that a reset did not clear.

Neither kernel uses it (``memmap=SIZE$ADDRESS``); it has the form of a partition.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from kmemdump.formats.rawdump import RAWDUMP_MAGIC
from kmemdump.memory.ranges import Range
from kmemdump.targets.devmem import open_reserved
from kmemdump.targets.memory_use import MemoryUse

__all__ = ["check_reserved_place", "has_copy", "memory_in_file"]

_CHUNK = 1 << 20


def check_reserved_place(where: Range, root: Path = Path("/")) -> None:
    """
    Check that memory is in no use.

    :param root: The folder with ``proc`` and ``sys``.
    :raises UnsupportedError: If it is in use, or not known to be memory.
    """
    with closing(MemoryUse(root)) as use:
        use.check([where])


def has_copy(where: Range, root: Path = Path("/")) -> bool:
    """
    Return whether a crash kernel began to write to memory.

    :param root: The folder with ``dev``, ``proc`` and ``sys``.
    :raises UnsupportedError: If it is not reserved, or the kernel does not allow it.
    """
    with closing(open_reserved([where], root)) as memory:
        return memory.read(where.start, len(RAWDUMP_MAGIC)) == RAWDUMP_MAGIC


@contextmanager
def memory_in_file(where: Range, root: Path = Path("/")) -> Iterator[Path]:
    """
    Copy memory to a file that is on no disk: what is made of it may be sealed.

    :param root: The folder with ``dev``, ``proc`` and ``sys``.
    :raises UnsupportedError: If it is not reserved, or the kernel does not allow it.
    """
    with (
        closing(open_reserved([where], root)) as memory,
        open(os.memfd_create("kmemdump-reserved", os.MFD_CLOEXEC), "wb") as file,
    ):
        os.fchmod(file.fileno(), 0o600)
        for at in range(where.start, where.end, _CHUNK):
            file.write(memory.read(at, min(_CHUNK, where.end - at)))
        file.flush()
        yield Path(f"/proc/self/fd/{file.fileno()}")
