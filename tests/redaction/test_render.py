# SPDX-License-Identifier: GPL-2.0-or-later
"""Each byte goes unless there is a reason to keep it."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from kmemdump.memory.physical import PAGE_SIZE, PageMemory
from kmemdump.memory.ranges import Range
from kmemdump.redaction import codes
from kmemdump.redaction.changed import ChangedMemory
from kmemdump.redaction.places import Known
from kmemdump.redaction.policy import load_policy
from kmemdump.redaction.reads import ByteRecorder, TextRun
from kmemdump.redaction.render import only_structure, render
from kmemdump.redaction.structures import Part
from kmemdump.redaction.text import Masker

KERNEL = 0xFFFF888012345678
SECRET = b"hunter2hunter2!!"
STRICT = load_policy("strict")
HELD = [Range(PAGE_SIZE, PAGE_SIZE)]


def is_kernel(value):
    return value >> 47 == 0x1FFFF


def rendered(data, reads, known=None, held=HELD):
    """Return what is left of a page, after it was read as it says."""
    memory = PageMemory({1: data.ljust(PAGE_SIZE, b"\0")})
    recorder = ByteRecorder(memory)
    for address, size in reads:
        recorder.read(PAGE_SIZE + address, size, 0, True)
    changed = ChangedMemory(memory)
    masker = Masker(STRICT)
    known = known or Known()
    _, tally = render(changed, held, recorder, known, masker, is_kernel)
    return changed.read(PAGE_SIZE, len(data)), tally


def test_what_nobody_reads_is_zero():
    left, tally = rendered(SECRET * 2, [(0, 8)])
    assert left == SECRET[:8] + bytes(24)
    assert tally.removed == {"slack": 24}
    assert tally.text_in_slack == 24


def test_of_what_is_read_in_one_piece_addresses_and_small_numbers_stay():
    words = struct.pack("<QQQ", KERNEL, 4095, 1 << 40) + SECRET
    left, _ = rendered(words, [(0, 40)])
    assert left == words[:16] + struct.pack("<II", 0, 256) + bytes(16)


def test_text_is_masked_at_equal_length():
    left, tally = rendered(b"hunter2\0proc\0", [(i, 1) for i in range(13)])
    assert left == b"xxxxxxx\0proc\0"
    assert tally.removed["other-text"] == 7


def test_text_that_goes_on_in_the_next_page_is_masked_there_too():
    start = 2 * PAGE_SIZE - 8
    data = bytes(PAGE_SIZE - 8) + b"password" + b"=hunter2\0"
    memory = PageMemory(
        {1: data[:PAGE_SIZE], 2: data[PAGE_SIZE:].ljust(PAGE_SIZE, b"\0")}
    )
    recorder = ByteRecorder(memory)
    for at in range(start, start + 17):
        recorder.read(at, 1, 0, True)
    held = [Range(PAGE_SIZE, 2 * PAGE_SIZE)]
    for known in (Known(), Known(texts=[TextRun(start, 17, "log-text")])):
        for policy, left in (
            (STRICT, b"xxxxxxxx=xxxxxxx\0"),
            (load_policy("share"), b"password=xxxxxxx\0"),
        ):
            changed = ChangedMemory(memory)
            render(changed, held, recorder, known, Masker(policy), is_kernel)
            if known.texts or policy is STRICT:
                assert changed.read(start, 17) == left


def test_numbers_of_a_byte_are_no_text():
    known = Known(parts=[Part(PAGE_SIZE, 4, codes.KEEP)])
    left, _ = rendered(b"abcd", [(i, 1) for i in range(4)], known)
    assert left == b"abcd"


def test_names_in_a_structure_are_masked_and_other_bytes_of_it_go():
    # A name of 8 bytes with a rest behind it, and another array.
    data = b"bash\0old" + SECRET
    known = Known(
        parts=[Part(PAGE_SIZE, 24, codes.DATA)],
        texts=[TextRun(PAGE_SIZE, 8, "task-names")],
    )
    left, _ = rendered(data, [(0, 24)], known)
    assert left == b"xxxx\0\0\0\0" + bytes(16)


def test_a_stack_keeps_addresses_even_if_a_question_reads_a_word():
    known = Known(stacks=[Range(PAGE_SIZE, 32)])
    words = struct.pack("<Q", KERNEL) + SECRET + struct.pack("<Q", 0x246)
    left, tally = rendered(words, [(i, 8) for i in (0, 8, 16, 24)], known)
    assert left == words[:8] + bytes(16) + words[24:]
    assert tally.removed == {"stacks": 16}


def test_what_is_known_of_an_object_on_a_stack_stays():
    """As timers, or the table of stacks that lies between those for exceptions."""
    known = Known(
        stacks=[Range(PAGE_SIZE, 48)],
        parts=[
            Part(PAGE_SIZE, 16, codes.KEEP),
            Part(PAGE_SIZE + 16, 8, codes.DATA),
            Part(PAGE_SIZE + 24, 8, codes.WORDS),
        ],
    )
    left, _ = rendered(SECRET * 3, [(0, 48)], known)
    assert left == SECRET + bytes(32)


def test_the_number_of_nobody_stays_and_those_of_users_go():
    known = Known(parts=[Part(PAGE_SIZE, 8, codes.IDS)])
    left, _ = rendered(struct.pack("<II", 1000, 0xFFFFFFFF), [(0, 4), (4, 4)], known)
    assert left == struct.pack("<II", 0, 0xFFFFFFFF)


def test_the_builds_own_stays():
    known = Known(own=[Range(PAGE_SIZE, 16)])
    left, _ = rendered(SECRET * 2, [], known)
    assert left == SECRET + bytes(16)


def test_registers_keep_addresses_and_small_numbers():
    words = struct.pack("<QQ", KERNEL, 3) + SECRET[:8] + struct.pack("<Q", 1 << 40)
    assert only_structure(words, is_kernel) == words[:16] + bytes(16)


@given(
    st.binary(min_size=64, max_size=200),
    st.lists(st.tuples(st.integers(0, 190), st.sampled_from((1, 2, 4, 8, 24)))),
    st.tuples(st.integers(0, 100), st.integers(1, 64)),
    st.tuples(st.integers(0, 100), st.integers(1, 64)),
)
def test_a_second_time_changes_nothing(data, reads, text, stack):
    known = Known(
        stacks=[Range(PAGE_SIZE + stack[0], stack[1])],
        texts=[TextRun(PAGE_SIZE + text[0], text[1], "paths")],
    )
    left, _ = rendered(data, reads, known)
    again, tally = rendered(left, reads, known)
    assert again == left
    assert not any(tally.removed.values())


@given(st.binary(min_size=8, max_size=64), st.integers(0, 60))
def test_a_part_of_a_page_is_held(data, start):
    held = [Range(PAGE_SIZE + start, PAGE_SIZE - start)]
    left, _ = rendered(data, [], held=held)
    assert left[:start] == data[:start]
    assert not any(left[start:])
