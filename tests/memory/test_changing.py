# SPDX-License-Identifier: GPL-2.0-or-later
"""A memory that another one takes the place of."""

import threading

import pytest

from kmemdump.errors import NotCapturedError
from kmemdump.memory.changing import ChangingMemory
from kmemdump.memory.physical import PageMemory
from kmemdump.memory.ranges import Range


class Pages(PageMemory):
    """A memory that a host keeps."""

    name = "pages"
    outlives_process = False


OLD, NEW = bytes([1]) * 4096, bytes([2]) * 4096


def test_replaced():
    memory = ChangingMemory(Pages({0: OLD}))
    assert memory.read(0, 4) == OLD[:4]
    assert memory.ranges == [Range(0, 4096)]
    assert (memory.name, memory.outlives_process) == ("pages", False)
    memory.replace(Pages({0: NEW, 1: NEW}))
    assert memory.read(0, 4) == NEW[:4]
    assert memory.ranges == [Range(0, 8192)]
    memory.close()
    with pytest.raises(NotCapturedError):
        memory.read(0, 4)


def test_a_read_that_misses():
    answers = [False, True]

    def missed() -> bool:
        found = answers.pop(0)
        if found:
            memory.replace(Pages({9: NEW}))
        return found

    memory = ChangingMemory(Pages({0: OLD}), missed)
    with pytest.raises(NotCapturedError):
        memory.read(9 * 4096, 4)
    assert memory.read(9 * 4096, 4) == NEW[:4]
    assert memory.read(9 * 4096, 8) == NEW[:8]
    assert answers == []


class _Closing(Pages):
    """Fails if it is closed while it is read."""

    reading = 0

    def read(self, address: int, size: int) -> bytes:
        self.reading += 1
        data = super().read(address, size)
        self.reading -= 1
        return data

    def close(self) -> None:
        assert self.reading == 0
        super().close()


def test_not_closed_while_it_is_read():
    memory = ChangingMemory(_Closing({0: OLD}))
    stop = threading.Event()
    failures = []

    def read() -> None:
        while not stop.is_set():
            if memory.read(0, 4096) not in (OLD, NEW):
                failures.append("mixed")

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(300):
            memory.replace(_Closing({0: (OLD, NEW)[number % 2]}))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
