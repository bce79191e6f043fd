# SPDX-License-Identifier: GPL-2.0-or-later
"""The line before what is sealed."""

import json
from datetime import UTC, datetime

import pytest

from kmemdump.errors import FormatError
from kmemdump.formats.sealed import (
    AGE_MAGIC,
    CLEAR_LIMIT,
    ClearLine,
    DeathTags,
    Sealed,
    find_sealed,
)

TIME = datetime(2026, 11, 28, 15, 44, 1, 250_000, tzinfo=UTC)
TAGS = DeathTags("01" * 16, "ab" * 16, "")


def line(version: object = 1, **fields: object) -> bytes:
    """Return a line and what follows it, written as the manual describes it."""
    good = {"release": "6.1.0", "time": "2026-11-28T16:44:01+01:00", "size": 7}
    text = json.dumps({**good, **fields})
    return f"kmemdump-sealed/{version} {text}\n".encode() + AGE_MAGIC + b"more"


def test_what_is_written_is_read() -> None:
    clear = ClearLine("6.1.0-test", TIME, 8_012_345, "panic|a|b", TAGS)
    head = clear.pack() + AGE_MAGIC
    assert find_sealed(head, "x") == Sealed(len(clear.pack()), clear)
    assert head.split(b"\n")[0].isascii()


def test_as_the_manual_has_it() -> None:
    head = line(unknown=[1])
    clear = ClearLine("6.1.0", TIME.replace(microsecond=0), 7)
    assert find_sealed(head, "x") == Sealed(head.index(AGE_MAGIC), clear)


def test_another_programs() -> None:
    assert find_sealed(AGE_MAGIC + b"-> X25519", "x") == Sealed(0, None)


@pytest.mark.parametrize("head", [b"", b"\x7fELF", b"kmemdump-seal", b"kmemdump"])
def test_not_sealed(head: bytes) -> None:
    assert find_sealed(head, "x") is None


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (line(2), "version 2, expected at most 1: use the kmemdump that wrote it"),
        (line("one"), "no version"),
        (line().replace(b"\n", b" "), "more than"),
        (line(size="7"), "size: expected a number of bytes"),
        (line(size=-1), "size: expected a number of bytes"),
        (line(size=True), "size: expected a number of bytes"),
        (line(time="yesterday"), "time: expected"),
        (line(time="2026-11-28T16:44:01"), "time: expected a time with its zone"),
        (line(release=6), "release: expected a string"),
        (line(signature="x" * 513), "signature: expected a string of at most 512"),
        (line(tags=["a", "b", "c"]), "tags: expected three"),
        (line(tags=["", ""]), "tags: expected three"),
        (line(tags=[{}, "", ""]), "tags: expected three"),
        (b"kmemdump-sealed/1 []\n" + AGE_MAGIC, "no JSON object"),
        (b"kmemdump-sealed/1 " + b"[" * 4000 + b"\n" + AGE_MAGIC, "no JSON"),
        (b"kmemdump-sealed/1 \xff\n" + AGE_MAGIC, "no JSON"),
        (
            line().partition(b"\n")[0] + b"\nplain text",
            "expected age-encryption.org/v1",
        ),
    ],
)
def test_damaged(head: bytes, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        find_sealed(head[:CLEAR_LIMIT], "x")


def test_hostile_text_controls_no_terminal() -> None:
    found = find_sealed(line(release="\x1b[31mred\u202e"), "x")
    assert found is not None
    assert found.clear is not None
    assert found.clear.release == r"\x1b[31mred\u202e"


def test_a_line_is_never_too_long() -> None:
    clear = ClearLine("\U0001f600" * 600, TIME, 1, "\U0001f600" * 600, TAGS)
    found = find_sealed(clear.pack() + AGE_MAGIC, "x")
    assert found is not None
    assert found.clear == ClearLine("", TIME, 1, "", TAGS)
