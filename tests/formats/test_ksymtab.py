# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of exported symbols, found by its contents."""

import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.formats.btf import find_btf
from kmemdump.formats.ksymtab import find_exports
from rigs.btf_writer import BtfWriter
from rigs.writers.ksymtab import write_ksymtab

BASE = 0xFFFF800008000000
AT = 0x8010
"""Offset of the table: the image has code before it."""
FUNCTIONS = {f"function_{i}": 64 * i for i in range(80)} | {"kfree": 0x4000}
VARIABLES = {"init_task": 0x20000, "jiffies": 0x20100, "__per_cpu_offset": 0x20200}
KNOWN = {name: [BASE + at] for name, at in FUNCTIONS.items()}
TABLE = write_ksymtab(FUNCTIONS, VARIABLES, AT)
IMAGE = bytes(range(256)) * (AT // 256) + bytes(AT % 256) + TABLE + b"\xff" * 0x20000


def test_variables_are_found():
    found = find_exports(IMAGE, BASE, KNOWN)
    assert found is not None
    names, place = found
    assert names == {n: BASE + at for n, at in (FUNCTIONS | VARIABLES).items()}
    assert place.start == AT
    assert AT + 12 * len(names) < place.end <= AT + len(TABLE)


@pytest.mark.parametrize(
    "known",
    [
        {},
        {"kfree": [BASE + 0x4000]},  # Too few to be a proof.
        KNOWN | {"function_7": [BASE + 8]},  # One that is elsewhere.
        {name: [at + 4 for at in places] for name, places in KNOWN.items()},
    ],
)
def test_a_table_that_functions_do_not_prove(known):
    assert find_exports(IMAGE, BASE, known) is None


def test_a_name_that_several_functions_have():
    known = KNOWN | {"function_7": [BASE + 8, *KNOWN["function_7"]]}
    assert find_exports(IMAGE, BASE, known) is not None


def test_no_table():
    assert find_exports(b"", BASE, KNOWN) is None
    assert find_exports(bytes(1 << 16), BASE, KNOWN) is None
    assert find_exports(IMAGE[:AT], BASE, KNOWN) is None


@given(st.lists(st.tuples(st.integers(0, len(TABLE) - 1), st.integers(0, 255))))
def test_damage_is_never_wrong(changes):
    image = bytearray(IMAGE)
    for at, value in changes:
        image[AT + at] = value
    found = find_exports(bytes(image), BASE, KNOWN)
    if found is not None:
        for name, address in found[0].items():
            if name in KNOWN:
                assert address in KNOWN[name]


def btf(*names: str) -> bytes:
    writer = BtfWriter()
    for name in names:
        writer.struct(name, 0, [])
    return writer.bytes()


def test_btf_by_its_header():
    kernel, module = btf("task_struct", "page"), btf("other")
    broken = bytearray(kernel)
    broken[24 + 7] = 0xFF  # The kind of the first type.
    image = bytes(8) + module + bytes(5) + bytes(broken) + bytes(3) + kernel + bytes(99)
    start = image.rindex(kernel)
    assert find_btf(image, "image") == (start, start + len(kernel))
    assert find_btf(image[:-100], "image") is None  # Its end is missing.
    assert find_btf(image[:start], "image") is None
    assert find_btf(b"", "image") is None


def test_many_addresses_of_one_name():
    """Each would be looked for in all of the image: hours for a hostile kernel."""
    before = time.process_time()
    assert find_exports(IMAGE, BASE, {"kfree": range(BASE, BASE + 1_000_000)}) is None
    assert time.process_time() - before < 30


def test_many_entries_of_one_name():
    """Each would be the start of a table, of which all others are a part."""
    count = 20_000
    name = 12 * count
    table = b"".join(
        struct.pack("<iii", 0x400000 - at, name - (at + 4), name - (at + 8))
        for at in range(0, name, 12)
    )
    before = time.process_time()
    assert find_exports(table + b"kfree\0", 0, {"kfree": [0x400000]}) is None
    assert time.process_time() - before < 30
