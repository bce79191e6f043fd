# SPDX-License-Identifier: GPL-2.0-or-later
"""Machine code as assembly, judged by objdump."""

import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.arch.disassembly import disassemble, disassemble_around
from kmemdump.errors import UnsupportedError

# A function of a kernel: push, mov, call, a load, a test and jumps, ud2.
X86 = bytes.fromhex(
    "f30f1efa 55 4889e5 4154 53 4889fb e8feffffff 488b4310 4885c0 7405 488b4008 c3"
    "c7042508000000 01000000 0f0b cc".replace(" ", "")
)
ARM = bytes.fromhex("1f2003d5 20008052 000000b9 fd7bbfa9 c0035fd6")


@pytest.mark.parametrize(
    ("machine", "code", "name"),
    [("x86_64", X86, "i386:x86-64"), ("aarch64", ARM, "aarch64")],
)
def test_instructions_are_where_objdump_has_them(machine, code, name, tmp_path):
    objdump = {"x86_64": "objdump", "aarch64": "aarch64-linux-gnu-objdump"}[machine]
    if not shutil.which(objdump):
        pytest.skip(f"needs {objdump}")
    file = tmp_path / "code"
    file.write_bytes(code)
    shown = subprocess.run(
        [objdump, "-D", "-z", "-b", "binary", "-m", name, file],
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    lines = re.findall(r"^ +([0-9a-f]+):\t[0-9a-f ]+\t(\w+)", shown, re.M)
    found = disassemble(machine, code, 0)
    assert [item.address for item in found] == [int(at, 16) for at, _ in lines]
    same = [
        (item.text or "").split()[0][:3] == word[:3]
        for item, (_, word) in zip(found, lines, strict=True)
    ]
    assert sum(same) >= len(same) - 1  # endbr64 and the like differ in spelling.


def test_the_instruction_that_failed_begins_where_it_did():
    """Whatever stands before it: here, the middle of another one."""
    for start in range(12):
        code = X86[start:]
        failed = X86.index(b"\xc7\x04\x25") - start
        found = disassemble_around("x86_64", code, 0x1000, failed)
        (item,) = (item for item in found if item.address == 0x1000 + failed)
        assert item.text == "mov dword ptr [8], 1"


def test_bytes_that_are_no_instruction():
    found = disassemble("x86_64", b"\x06\x90", 7)
    assert [(item.address, item.code, item.text) for item in found] == [
        (7, b"\x06", None),
        (8, b"\x90", "nop"),
    ]


def test_a_machine_that_is_not_known():
    with pytest.raises(UnsupportedError, match="no disassembly for vax"):
        disassemble("vax", b"", 0)


@given(st.sampled_from(["x86_64", "aarch64", "riscv64", "i686", "armv7l"]), st.binary())
def test_every_byte_is_shown_once(machine, code):
    found = disassemble(machine, code, 0x1000)
    assert b"".join(item.code for item in found) == code
    assert [item.address for item in found] == [
        0x1000 + sum(len(it.code) for it in found[:i]) for i in range(len(found))
    ]
