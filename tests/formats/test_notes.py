# SPDX-License-Identifier: GPL-2.0-or-later
"""One of our notes is read out of a core, and no more of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.errors import FormatError
from kmemdump.formats.elf import (
    PT_LOAD,
    PT_NOTE,
    ProgramHeader,
    header_size,
    pack_header,
    pack_note,
)
from kmemdump.formats.notes import NoteType, find_own, pack_own, read_own
from rigs.small_core import write


def read(data, type=NoteType.MANIFEST, limit=1 << 20, seen=None):
    def part(offset, count):
        if seen is not None:
            seen.append(count)
        return data[offset : offset + count]

    return read_own(part, len(data), "core", type, limit)


def core(*segments):
    """Return a core with segments of notes."""
    start = header_size(len(segments) + 1)
    headers = [ProgramHeader(PT_LOAD, 4, 0, 0, 0, 0, 0, 0)]
    for notes in segments:
        headers.append(ProgramHeader(PT_NOTE, 0, start, 0, 0, len(notes), 0, 0))
        start += len(notes)
    return pack_header(62, headers) + b"".join(segments)


def test_of_a_core_image(tmp_path):
    data = write(tmp_path / "core").read_bytes()
    desc = read(data)
    assert desc.startswith(b'{"version":1,')
    assert read(data, NoteType.LABELS) is None


def test_other_notes_are_not_read():
    large = pack_note("CORE", 1, bytes(1 << 20))
    notes = large + pack_own(NoteType.PACKED, bytes(1 << 20))
    data = core(notes, pack_own(NoteType.MANIFEST, b"here"))
    seen = []
    assert read(data, seen=seen) == b"here"
    assert sum(seen) < 1000


def test_a_name_is_compared_as_a_whole():
    imposter = pack_note("KMEMDUMP2", NoteType.MANIFEST, b"no")
    data = core(imposter + pack_own(NoteType.MANIFEST, b"yes"))
    assert read(data) == b"yes"


def test_too_large():
    data = core(pack_own(NoteType.MANIFEST, bytes(100)))
    assert len(read(data, limit=100)) == 100
    with pytest.raises(FormatError, match="note of 100 bytes, expected at most 99"):
        read(data, limit=99)


def test_too_many():
    data = core(pack_note("A", 1, b"") * 40_000 + pack_own(NoteType.MANIFEST, b"no"))
    assert read(data) is None


def test_cut():
    data = core(pack_own(NoteType.MANIFEST, bytes(100)))
    for size in range(0, len(data) - 1, 7):
        with pytest.raises(FormatError):
            read(data[:size])


@given(st.binary(max_size=300), st.integers(0, 400), st.binary(max_size=8))
def test_any_bytes(tail, at, patch):
    data = bytearray(
        core(pack_note("CORE", 1, b"x"), pack_own(NoteType.MANIFEST, b"y"))
    )
    data += tail
    data[at : at + len(patch)] = patch
    try:
        desc = read(bytes(data))
    except FormatError:
        return
    assert desc is None or len(desc) <= len(data)


def test_same_as_all_notes(tmp_path):
    from kmemdump.coreimage import read_core

    path = write(tmp_path / "core")
    with read_core(path) as image:
        for type in NoteType:
            assert read(path.read_bytes(), type, 1 << 24) == find_own(image.notes, type)
