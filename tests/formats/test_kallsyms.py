# SPDX-License-Identifier: GPL-2.0-or-later
"""Kallsyms are found by their contents, in each layout, and damage is noticed."""

import struct

import pytest

from kmemdump.errors import FormatError
from kmemdump.formats.kallsyms import (
    Kallsyms,
    SymbolAddresses,
    kallsyms_at,
    parse_tokens,
)
from kmemdump.formats.kallsyms_search import (
    TOKEN_DIGITS,
    find_kallsyms,
    find_name,
    tokens_at,
)
from rigs.writers.kallsyms import NEW, OLD, PLACE, SORTED, Written, write_kallsyms

TEXT = 0xFFFFFFFF81000000
VIRTUAL = 0xFFFFFFFF82123450 & -8
BEFORE = 0x3000
"""Bytes before the tables: code, and what looks like tables."""
LONG = "t" + "very_long_name_" * 20
SYMBOLS = [
    *((TEXT + 16 * i, f"Tsys_{i}_init_read_{i * i}") for i in range(900)),
    (TEXT + 0x4000, "T_stext"),
    (TEXT + 0x4000, LONG),
    *((TEXT + 0x5000 + 8 * i, f"dkmem_{i:x}") for i in range(1300)),
]
PER_CPU = [(8 * i, f"Dper_cpu_{i}") for i in range(40)]
OBJECT, FUNCTION = 1, 2
GLOBAL, UNKNOWN = 1 << 4, 15 << 4
"""``st_info`` of <elf.h>; 15 is no binding of ELF."""
LAYOUTS = [
    pytest.param(OLD, 8, PER_CPU, id="5.10"),
    pytest.param(OLD, 8, [], id="5.10-aarch64"),
    pytest.param(SORTED, 8, PER_CPU, id="6.2"),
    pytest.param(NEW, 8, PER_CPU, id="6.12"),
    pytest.param(NEW, 8, [], id="6.15"),
    pytest.param(PLACE, 8, [], id="7.0"),
    pytest.param(PLACE, 4, [], id="7.2"),
]


def find(data: bytes) -> Kallsyms:
    tokens = tokens_at(data, data.index(TOKEN_DIGITS))
    assert tokens is not None
    return find_kallsyms(data, tokens, "data")


def write(order, alignment, per_cpu):
    written = write_kallsyms(
        [*per_cpu, *SYMBOLS],
        order,
        VIRTUAL,
        alignment=alignment,
        absolute_percpu=bool(per_cpu),
    )
    noise = bytes(range(256)) * (BEFORE // 256 - 1) + bytes(256)
    return written, noise + written.data + b"\x90" * 4096


@pytest.mark.parametrize(("order", "alignment", "per_cpu"), LAYOUTS)
def test_each_layout_is_found_and_read(order, alignment, per_cpu):
    written, data = write(order, alignment, per_cpu)
    found = find(data)
    symbols = [*per_cpu, *SYMBOLS]
    assert found.count == len(symbols)
    assert [it.decode() for it in found.decoded()] == [name for _, name in symbols]
    places = {name: at + BEFORE for name, at in written.places.items()}
    assert (found.num_syms, found.names) == (places["count"], places["names"])
    assert found.markers == places["markers"]
    assert (found.tokens.table, found.tokens.index) == (
        places["tokens"],
        places["index"],
    )
    first, *_ = found.addresses()
    assert first.offsets == places["offsets"]
    assert first.base == places.get("base")
    shift = VIRTUAL - BEFORE if first.base is None else 0
    assert [at + shift for at in first.values] == [at for at, _ in symbols]
    size = 4 * found.count
    ends = [first.offsets + size, *([] if first.base is None else [first.base + 8])]
    assert found.find_sequences(ends) == places.get("order")
    numbers = found.find({"_stext", "sys_7_init_read_49", "absent"})
    at = len(per_cpu)
    assert numbers == {"_stext": [at + 900], "sys_7_init_read_49": [at + 7]}


def known(written: Written) -> Kallsyms:
    at = written.places
    places = (at["names"], at["count"], at["tokens"], at["index"])
    return kallsyms_at(written.data, *places, "data")


@pytest.mark.parametrize(("order", "alignment", "per_cpu"), LAYOUTS)
def test_symbols_whose_tables_are_known(order, alignment, per_cpu):
    written, _ = write(order, alignment, per_cpu)
    at = written.places
    symbols = known(written).symbols(at["offsets"], at.get("base"), VIRTUAL)
    rows = [(row.address, row.name, row.info) for row in symbols]
    kinds = {"T": GLOBAL | FUNCTION, "t": UNKNOWN | FUNCTION}
    kinds |= {"D": GLOBAL | OBJECT, "d": UNKNOWN | OBJECT}
    assert rows == [
        (address, name[1:], kinds[name[0]]) for address, name in [*per_cpu, *SYMBOLS]
    ]


def test_lengths_of_one_byte():
    """Before v6.1, a length of 128 or more is one byte, too."""
    long = "tz" + "q#" * 70
    short = [it for it in SYMBOLS if it[1] != LONG]
    written = write_kallsyms([*short, (TEXT + 0x90000, long)], OLD, VIRTUAL)
    packed = bytes([142 & 127 | 128, 142 >> 7])
    before = written.data.index(packed, written.places["names"])
    data = bytearray(written.data)
    data[before : before + 2] = bytes([142])
    data.insert(written.places["markers"] - 1, 0)
    found = known(Written(bytes(data), written.places))
    assert not found.long_names
    assert list(found.decoded())[-1].decode() == long


def test_names_that_are_too_long():
    names = [(TEXT + i, "T" + "vfs" * 200) for i in range(300)]
    written = write_kallsyms(names, NEW, VIRTUAL)
    with pytest.raises(FormatError, match="kallsyms of 601 to 601 bytes"):
        known(written).symbols(written.places["offsets"], written.places["base"], 0)


def test_names_that_are_not_all_there():
    """Nor are the markers, which would follow."""
    tokens = b"a\0" * 256
    index = struct.pack("<256H", *range(0, 512, 2))
    data = index + tokens + struct.pack("<I", 100)
    with pytest.raises(FormatError, match="do not agree with their markers"):
        kallsyms_at(data, len(data), len(data) - 4, 512, 0, "data")


def test_names_that_would_fill_memory():
    """A token of 500 bytes, in 600,000 bytes of names."""
    count, stored = 1 << 15, b"\x12" + 18 * b"A"
    tokens = [b"T" * 500 if i == ord("A") else b"%c" % max(i, 1) for i in range(256)]
    table = b"".join(token + b"\0" for token in tokens)
    starts = [sum(len(token) + 1 for token in tokens[:i]) for i in range(256)]
    markers = [i * 256 * len(stored) for i in range(count // 256)]
    parts = [struct.pack("<II", count, 0), stored * count]
    parts += [struct.pack(f"<{len(markers)}I", *markers), struct.pack("<256H", *starts)]
    parts += [table, bytes(8 * count)]
    at = [len(b"".join(parts[:i])) for i in range(len(parts))]
    found = kallsyms_at(b"".join(parts), at[1], at[0], at[4], at[3], "data")
    with pytest.raises(FormatError, match="may take more than 268435456 bytes"):
        found.symbols(at[5], None, 0)


def test_an_index_that_is_cut_short():
    with pytest.raises(FormatError, match="511 bytes of kallsyms' index"):
        parse_tokens(bytes(511), b"", "data")


def test_a_name_is_found_without_the_other_tables():
    written, _ = write(NEW, 8, [])
    data, places = written.data, written.places
    strings = parse_tokens(
        data[places["index"] :][:512], data[places["tokens"] :][:8192], "test"
    )
    names = data[places["names"] : places["markers"]]
    assert find_name(names, strings, b"_stext", True) == 900
    assert find_name(names, strings, LONG[1:].encode(), True) == 901
    assert find_name(names, strings, b"absent", True) is None
    assert find_name(names[:5000], strings, b"_stext", True) is None


def test_equal_names_are_all_returned():
    symbols = [*SYMBOLS, (TEXT + 0x90000, "b_stext")]
    data = write_kallsyms(symbols, NEW, VIRTUAL).data
    assert find(data).find({"_stext"}) == {"_stext": [900, len(SYMBOLS)]}


def test_the_hash_of_thin_lto_is_not_in_a_name():
    symbols = [*SYMBOLS, (TEXT + 0x90000, "bprb.llvm.17132674095431275852")]
    data = write_kallsyms(symbols, NEW, VIRTUAL).data
    assert find(data).find({"prb"}) == {"prb": [len(SYMBOLS)]}


def damage(written: Written, part: str, at: int, byte: int = 0x5A) -> bytes:
    data = bytearray(written.data)
    data[written.places[part] + at] ^= byte
    return bytes(data)


@pytest.mark.parametrize("order", [OLD, SORTED, NEW, PLACE])
@pytest.mark.parametrize(
    ("part", "at"),
    [
        ("count", 1),  # Another number of markers.
        ("names", 0),  # The length of a name.
        ("names", 4000),
        ("markers", 4),
        ("markers", 12),
    ],
)
def test_damaged_names_are_refused(order, part, at):
    written = write_kallsyms(SYMBOLS, order, VIRTUAL)
    data = damage(written, part, at)
    with pytest.raises(FormatError, match="names that agree with their markers"):
        find(data)
    if part != "count":
        with pytest.raises(FormatError, match="do not agree with their markers"):
            known(Written(data, written.places))


@pytest.mark.parametrize("part", ["tokens", "index"])
def test_damaged_tokens_are_no_tokens(part):
    written = write_kallsyms(SYMBOLS, NEW, VIRTUAL)
    for at in (0, 100, 300):
        data = damage(written, part, at, 0x80)
        tokens = tokens_at(data, data.index(TOKEN_DIGITS))
        assert tokens is None or part == "tokens"


@pytest.mark.parametrize("order", [OLD, NEW, PLACE])
def test_addresses_must_ascend(order):
    written = write_kallsyms(SYMBOLS, order, VIRTUAL)
    places: set[int | None] = {written.places["offsets"]}

    def read(data: bytes) -> list[SymbolAddresses]:
        return [it for it in find(data).addresses() if it.offsets in places]

    assert read(written.data)
    damaged = damage(written, "offsets", 4 * 500 + 2)
    assert not read(damaged)
    at = written.places
    with pytest.raises(FormatError, match="addresses of kallsyms that do not ascend"):
        known(Written(damaged, at)).symbols(at["offsets"], at.get("base"), VIRTUAL)


def test_a_base_in_user_space_is_none():
    written = write_kallsyms(SYMBOLS, NEW, VIRTUAL)
    data = damage(written, "base", 7, 0x80)
    assert all(it.base is None for it in find(data).addresses())


@pytest.mark.parametrize(("order", "alignment", "per_cpu"), LAYOUTS[2:])
def test_an_order_that_is_none(order, alignment, per_cpu):
    """A number is missing, one is there twice, or the table is cut off."""
    written, data = write(order, alignment, per_cpu)
    found = find(data)
    (first, *_) = found.addresses()
    ends = [first.offsets + 4 * found.count]
    ends += [] if first.base is None else [first.base + 8]
    at = written.places["order"] + BEFORE
    for number in (0, found.count, 0xFFFFFF):
        wrong = number.to_bytes(3, "big")
        if wrong != data[at + 3 : at + 6]:
            damaged = data[: at + 3] + wrong + data[at + 6 :]
            assert find(damaged).find_sequences(ends) is None
    if order[-1] == "order":
        assert find(data[: at + 100]).find_sequences(ends) is None
    assert found.find_sequences([1 << 40, len(data)]) in (None, at)
