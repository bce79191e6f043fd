# SPDX-License-Identifier: GPL-2.0-or-later
"""Section headers, compared with what readelf and a writer of its own say."""

import re
import shutil
import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.errors import FormatError
from kmemdump.formats.elf_sections import parse_object
from rigs.writers.elf_object import elf_object

NAMES = st.text("abcdefgh._", min_size=1, max_size=20).map(lambda text: f".{text}")


def parse(data):
    return parse_object(lambda at, count: data[at : at + count], len(data), "x.ko")


@given(st.dictionaries(NAMES, st.integers(0, 2**64 - 1), max_size=30))
def test_round_trip(sections):
    found = {item.name: item.size for item in parse(elf_object(sections))[1:-1]}
    assert found == sections


@pytest.mark.skipif(
    not (shutil.which("gcc") and shutil.which("readelf")), reason="needs gcc"
)
def test_an_object_file_as_readelf_reads_it(tmp_path):
    source = '__attribute__((section(".text.cold"))) int f(int x) { return x; }'
    argv = ["gcc", "-g", "-c", "-x", "c", "-", "-o", "a.o"]
    subprocess.run(argv, input=source, text=True, cwd=tmp_path, check=True)
    shown = subprocess.run(
        ["readelf", "-SW", "a.o"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    row = r"^ *\[ *\d+\] (\S+) +\S+ +\w{16} (\w{6}) (\w{6}) \w\w +(\w*) "
    expected = [
        (name, int(offset, 16), int(size, 16), "A" in flags)
        for name, offset, size, flags in re.findall(row, shown, re.M)
    ]
    assert (".text.cold", True) in {(name, loaded) for name, *_, loaded in expected}
    found = parse((tmp_path / "a.o").read_bytes())
    assert [
        (item.name, item.offset, item.size, item.is_loaded) for item in found[1:]
    ] == expected


def test_what_is_refused():
    good = elf_object({".text": 5})
    with pytest.raises(FormatError, match="the ELF header should be at"):
        parse(good[:63])
    with pytest.raises(FormatError, match="expected a relocatable file"):
        parse(elf_object({}, kind=4))
    with pytest.raises(FormatError, match="the section headers should be at"):
        parse(good[:-1])
    with pytest.raises(FormatError, match="e_shstrndx"):
        parse(good[:62] + struct.pack("<H", 9) + good[64:])
    with pytest.raises(FormatError, match="65535 section headers"):
        parse(good[:60] + b"\xff\xff" + good[62:])
    names_size = len(good) - 64 + 32
    damaged = good[:names_size] + struct.pack("<Q", 1 << 40) + good[names_size + 8 :]
    with pytest.raises(FormatError, match="bytes of names"):
        parse(damaged)
