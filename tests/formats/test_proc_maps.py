# SPDX-License-Identifier: GPL-2.0-or-later
"""The mappings of a process."""

import mmap
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.errors import FormatError
from kmemdump.formats.proc_maps import parse_maps

TEXT = f"""\
55d8c0a00000-55d8c0a21000 r--p 00000000 fd:01 1835 /usr/bin/vmm
55d8c1b00000-55d8c1c00000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0040000000 rw-s 00001000 00:01 4097                       /memfd:ram (x)
7f0040000000-7f0040200000 rw-p 00000000 00:00 0{" "}
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
"""


def test_fields():
    code, heap, ram, nameless, *rest = parse_maps(TEXT, "maps")
    assert (code.readable, code.writable, code.shared) == (True, False, False)
    assert (code.name, code.device, code.inode) == ("/usr/bin/vmm", (0xFD, 1), 1835)
    assert heap.name == "[heap]"
    assert (ram.start, ram.size, ram.offset) == (0x7F0000000000, 1 << 30, 4096)
    assert (ram.shared, ram.inode, ram.name) == (True, 4097, "/memfd:ram (x)")
    assert (nameless.name, nameless.inode, nameless.end) == ("", 0, 0x7F0040200000)
    assert [item.name for item in rest] == ["[stack]", "[vsyscall]"]
    assert [item.executable for item in (code, *rest)] == [False, False, True]


def test_our_own():
    """Names may have what separates lines elsewhere."""
    fd = os.memfd_create("odd\x0b\x1c name\n")
    os.ftruncate(fd, 1 << 21)
    with mmap.mmap(fd, 1 << 20, offset=1 << 20):
        with open("/proc/self/maps", "rb") as file:
            text = file.read().decode("utf-8", "replace")
        [found] = [it for it in parse_maps(text, "maps") if "memfd:odd" in it.name]
    assert (found.size, found.offset, found.shared) == (1 << 20, 1 << 20, True)
    assert found.inode == os.fstat(fd).st_ino
    os.close(fd)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x", "line 1: 'x', expected a mapping"),
        ("2000-1000 rw-p 00000000 00:00 0\n", "ends too early, or out of order"),
        (
            "2000-3000 rw-p 0 00:00 0\n1000-2000 rw-p 0 00:00 0\n",
            "line 2: .* out of order",
        ),
        (
            "".join(f"{i:x}000-{i + 1:x}000 rw-p 0 0:0 0\n" for i in range(1, 65538)),
            "more than 65536 mappings",
        ),
    ],
    ids=["text", "end", "order", "many"],
)
def test_refused(text, problem):
    with pytest.raises(FormatError, match=problem):
        parse_maps(text, "maps")


@given(st.text())
def test_any_text(text):
    try:
        found = parse_maps(text, "maps")
    except FormatError:
        return
    assert all(item.size > 0 for item in found)
