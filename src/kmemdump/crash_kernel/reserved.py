# SPDX-License-Identifier: GPL-2.0-or-later
"""
Reserved memory that a crash kernel copied to, and that a reset did not clear.

Neither kernel uses it (``memmap=SIZE$ADDRESS``); it has the form of a partition.
"""

from __future__ import annotations

import tempfile
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
    Copy memory to a file that only its owner can read, and which is removed again.

    :param root: The folder with ``dev``, ``proc`` and ``sys``.
    :raises UnsupportedError: If it is not reserved, or the kernel does not allow it.
    """
    with (
        closing(open_reserved([where], root)) as memory,
        tempfile.NamedTemporaryFile(prefix="kmemdump-") as file,
    ):
        for at in range(where.start, where.end, _CHUNK):
            file.write(memory.read(at, min(_CHUNK, where.end - at)))
        file.flush()
        yield Path(file.name)
