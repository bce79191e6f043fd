# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that is mapped takes whole words, and nothing outside of its extents."""

import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.errors import NotCapturedError, TargetError
from kmemdump.memory.mapped import MappedMemory
from kmemdump.memory.ranges import Extent, Range

PAGE = 4096
START = 0x80000000


@pytest.fixture(scope="module")
def memory() -> Iterator[MappedMemory]:
    with tempfile.TemporaryFile() as file:
        file.truncate(4 * PAGE)
        extents = [
            Extent(START, PAGE, PAGE),
            Extent(START + 8 * PAGE, 2 * PAGE, 2 * PAGE),
        ]
        mapped = MappedMemory(file.fileno(), extents, "ram")
        yield mapped
        mapped.close()


@given(start=st.integers(0, 60), data=st.binary(max_size=60))
def test_what_is_written_is_read(memory: MappedMemory, start: int, data: bytes) -> None:
    before = memory.read(START, 128)
    memory.write(START + start, data)
    assert memory.read(START + start, len(data)) == data
    expected = before[:start] + data + before[start + len(data) :]
    assert memory.read(START, 128) == expected


def test_what_is_mapped(memory: MappedMemory) -> None:
    assert memory.ranges == [Range(START, PAGE), Range(START + 8 * PAGE, 2 * PAGE)]
    memory.write(START + 10 * PAGE - 2, b"ab")
    assert memory.read(START + 10 * PAGE - 3, 3) == b"\0ab"
    for address in (START - 1, START + PAGE - 1, START + 10 * PAGE - 1, 0):
        with pytest.raises(NotCapturedError, match="is not mapped for writing"):
            memory.write(address, b"ab")


def test_what_cannot_be_mapped() -> None:
    with tempfile.TemporaryFile() as file:
        file.truncate(PAGE)
        with pytest.raises(TargetError, match="cannot map 0x80000000-0x80002000"):
            MappedMemory(file.fileno(), [Extent(START, 2 * PAGE, 0)], "ram")
