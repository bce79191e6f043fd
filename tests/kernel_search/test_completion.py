# SPDX-License-Identifier: GPL-2.0-or-later
"""A VMCOREINFO that lacks lines gets those that memory proves, and no others."""

from pathlib import Path

import pytest

from kmemdump.kernel_search.completion import complete
from kmemdump.kernel_search.notes import is_present
from kmemdump.memory.physical import FileMemory
from kmemdump.vmcoreinfo import VmcoreInfo
from rigs.synthetic import TEXT_MAP, UTS, file_memory, uts, vmcoreinfo
from rigs.writers.kallsyms import NEW, OLD, PLACE, Written, write_kallsyms

STEXT = 0x1000000
TABLES = 0x1800000
OLD_INFO = vmcoreinfo().replace(b"OFFSET(uts_namespace.name)=0\n", b"")
SYMBOLS = [
    (TEXT_MAP + STEXT, "T_stext"),
    *((TEXT_MAP + STEXT + 16 * i, f"Tsys_{i}") for i in range(1000)),
    (TEXT_MAP + UTS, "Dinit_uts_ns"),
]
PER_CPU = [(8 * i, f"Dper_cpu_{i}") for i in range(40)]
NAMES = ("names", "num_syms", "token_table", "token_index", "offsets")


def tables(order=OLD, symbols=SYMBOLS, **options) -> Written:
    return write_kallsyms(symbols, order, TEXT_MAP + TABLES, **options)


def memory(path: Path, written: Written, at: int = TABLES) -> FileMemory:
    return file_memory(path, 48 << 20, [(UTS + 4, uts()), (at, written.data)])


def parse(raw: bytes) -> VmcoreInfo:
    return VmcoreInfo.parse(raw, "test")


@pytest.mark.parametrize(
    ("order", "symbols"),
    [(OLD, [*PER_CPU, *SYMBOLS]), (NEW, SYMBOLS), (PLACE, SYMBOLS)],
)
def test_kallsyms_and_the_name_are_added(tmp_path, order, symbols):
    written = tables(order, symbols, absolute_percpu=symbols is not SYMBOLS)
    ram = memory(tmp_path / "ram", written)
    before = parse(OLD_INFO)
    assert is_present(before, ram)
    after = complete(before, ram)
    assert after.raw.startswith(OLD_INFO)
    assert after.offset("uts_namespace.name") == 4
    places = {name: TEXT_MAP + TABLES + at for name, at in written.places.items()}
    assert after.symbol("kallsyms_names") == places["names"]
    assert after.symbol("kallsyms_num_syms") == places["count"]
    assert after.symbol("kallsyms_token_table") == places["tokens"]
    assert after.symbol("kallsyms_token_index") == places["index"]
    assert after.symbol("kallsyms_offsets") == places["offsets"]
    if "base" in places:
        assert after.symbol("kallsyms_relative_base") == places["base"]
    else:
        assert "SYMBOL(kallsyms_relative_base)" not in after.values
    # What is whole now stays as it is.
    assert complete(after, ram) is after
    ram.close()


def whole(written: Written) -> bytes:
    parts = {"num_syms": "count", "token_table": "tokens", "token_index": "index"}
    lines = {name: parts.get(name, name) for name in NAMES}
    if "base" in written.places:
        lines["relative_base"] = "base"
    text = vmcoreinfo().replace(b"name)=0", b"name)=4")
    for name, part in lines.items():
        address = TEXT_MAP + TABLES + written.places[part]
        text += f"SYMBOL(kallsyms_{name})={address:x}\n".encode()
    return text


@pytest.mark.parametrize("order", [OLD, NEW, PLACE])
def test_a_whole_one_stays(tmp_path, order):
    written = tables(order)
    ram = memory(tmp_path / "ram", written)
    info = parse(whole(written))
    assert complete(info, ram) is info
    ram.close()


@pytest.mark.parametrize("name", NAMES)
def test_wrong_lines_are_corrected(tmp_path, name):
    written = tables(NEW)
    ram = memory(tmp_path / "ram", written)
    right = parse(whole(written))
    key = f"SYMBOL(kallsyms_{name})"
    wrong = right.with_lines({key: f"{right.symbol(f'kallsyms_{name}') + 64:x}"})
    found = complete(wrong, ram)
    assert found.values == right.values
    ram.close()


def test_tables_of_another_kernel_are_not_taken(tmp_path):
    others = [(at + 0x10000, name) for at, name in SYMBOLS]
    ram = memory(tmp_path / "ram", tables(OLD, others))
    found = complete(parse(OLD_INFO), ram)
    assert "SYMBOL(kallsyms_names)" not in found.values
    ram.close()


def test_tables_before_the_image_are_not_taken(tmp_path):
    ram = memory(tmp_path / "ram", tables(), at=STEXT - (1 << 20))
    found = complete(parse(OLD_INFO), ram)
    assert "SYMBOL(kallsyms_names)" not in found.values
    ram.close()


def test_what_memory_lacks_is_not_added(tmp_path):
    ram = file_memory(tmp_path / "ram", 1 << 20, [])
    info = parse(OLD_INFO)
    assert complete(info, ram) is info
    ram.close()
