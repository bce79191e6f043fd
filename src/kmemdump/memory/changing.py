# SPDX-License-Identifier: GPL-2.0-or-later
"""Physical memory that may change its extent: of a VM that is given more, or less."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from kmemdump.errors import NotCapturedError
from kmemdump.memory.physical import StoredMemory
from kmemdump.memory.ranges import Range

__all__ = ["ChangingMemory"]


class ChangingMemory:
    """
    A memory in whose place another one can be put while it is read.

    Who holds this object need not know of the change: each read is of one memory, the
    old one or the new one.

    :param memory: What is read; closed by this object, as are those that follow.
    :param missed: Called, in the thread that reads, if a read fails. Returns whether
        another memory is in its place now, which is then read once. Must not read this
        object's memory while another thread replaces it.
    """

    def __init__(
        self, memory: StoredMemory, missed: Callable[[], bool] = lambda: False
    ) -> None:
        self._memory = memory
        self._missed = missed
        # A memory must not be closed while another thread reads it: its file
        # descriptor may belong to another file at once.
        self._lock = threading.RLock()

    @property
    def ranges(self) -> Sequence[Range]:
        return self._memory.ranges

    @property
    def name(self) -> str:
        """Name of the file or process, for messages."""
        return self._memory.name

    @property
    def outlives_process(self) -> bool:
        """Whether it stays when the process ends whose memory it is."""
        return self._memory.outlives_process

    @property
    def current(self) -> StoredMemory:
        """The memory that is read now; a later call may return another one."""
        return self._memory

    def read(self, address: int, size: int) -> bytes:
        try:
            with self._lock:
                return self._memory.read(address, size)
        except NotCapturedError:
            if not self._missed():
                raise
        with self._lock:
            return self._memory.read(address, size)

    def replace(self, memory: StoredMemory) -> None:
        """Read *memory* from now on, and close what was read before."""
        with self._lock:
            before, self._memory = self._memory, memory
            before.close()

    def close(self) -> None:
        with self._lock:
            self._memory.close()
