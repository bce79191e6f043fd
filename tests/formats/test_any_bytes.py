# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever a parser is given, it returns a result or one FormatError, soon."""

import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kmemdump.errors import FormatError
from rigs.parsers import PARSERS, Parser

pytestmark = pytest.mark.slow

SECONDS = 2
"""Of this process: others may be busy."""
BYTES = 64 << 20


def attempt(parser: Parser, data: bytes) -> None:
    start = time.process_time()
    message = "none"
    try:
        parser.run(data)
    except FormatError as error:
        message = str(error)
    assert 0 < len(message) < 1000
    assert time.process_time() - start < SECONDS


each_parser = pytest.mark.parametrize("parser", PARSERS, ids=lambda it: it.name)


@each_parser
def test_seeds(parser: Parser) -> None:
    """The inputs that fuzzing starts from are good ones."""
    for seed in parser.seeds:
        parser.run(seed)


@each_parser
@settings(deadline=None)
@given(data=st.binary(max_size=4000))
def test_any_bytes(parser: Parser, data: bytes) -> None:
    attempt(parser, data)


@each_parser
@settings(deadline=None)
@given(data=st.data())
def test_damaged_input(parser: Parser, data: st.DataObject) -> None:
    damaged = bytearray(data.draw(st.sampled_from(parser.seeds)))
    # Most of a seed is zeros; what has a meaning is what should change.
    places = [i for i, byte in enumerate(damaged) if byte] or [0]
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.sampled_from(places)) + data.draw(st.integers(-4, 4))
        if 0 <= at < len(damaged):
            damaged[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, 0x40]))
    attempt(parser, bytes(damaged))
    attempt(parser, bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))


@each_parser
def test_large_input(parser: Parser) -> None:
    """A good start with megabytes behind it costs neither memory nor time."""
    data = parser.seeds[0] + b"\0\xa5\xff$" * (1 << 20)
    attempt(parser, parser.seeds[0])  # What is imported, or made once, is not counted.
    tracemalloc.start()
    try:
        attempt(parser, data)
        assert tracemalloc.get_traced_memory()[1] < BYTES
    finally:
        tracemalloc.stop()
