# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel without VMCOREINFO is known by its contents, or not taken for one."""

import os
import re
import struct
import time
from contextlib import suppress
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.errors import FormatError
from kmemdump.formats.elf import Note
from kmemdump.kernel_search.finder import find_by_contents, find_kernel
from kmemdump.memory.physical import FileMemory
from kmemdump.memory.ranges import Extent
from rigs.synthetic import vmcoreinfo_note
from rigs.writers.kallsyms import NEW, OLD, PLACE, SORTED
from rigs.writers.kernel_memory import IMAGE, MIB, PAGE_TABLE, SyntheticKernel

pytestmark = pytest.mark.slow

LAYOUTS = [
    pytest.param(OLD, 8, id="5.10"),
    pytest.param(SORTED, 8, id="6.2"),
    pytest.param(NEW, 8, id="6.6"),
    pytest.param(PLACE, 8, id="7.0"),
    pytest.param(PLACE, 4, id="7.2"),
]


def memory(kernel: SyntheticKernel, data: bytes | None = None) -> FileMemory:
    fd = os.memfd_create("kernel")
    os.write(fd, data or kernel.memory)
    return FileMemory(fd, [Extent(kernel.ram, kernel.size, 0)], "ram")


def make(arch: str, **options: object) -> SyntheticKernel:
    ram = 0 if arch == "x86_64" else 0x80000000
    return SyntheticKernel(arch, ram=ram, **options)


kept = cache(make)
"""Kernels that no test changes."""


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
@pytest.mark.parametrize(("order", "alignment"), LAYOUTS)
def test_found_with_all_lines(arch, order, alignment):
    kernel = make(arch, order=order, alignment=alignment)
    info = find_by_contents(memory(kernel), "ram")
    assert info is not None
    found = {key: info.values.get(key) for key in kernel.truth}
    assert found == kernel.truth
    assert "kernel at 0x" in info.source


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_a_copy_of_the_image_is_none(arch):
    """A boot loader leaves one, which has no page tables."""
    kernel = make(arch, size=16 * MIB, place=10 * MIB)
    image = kernel.memory[kernel.place : kernel.place + IMAGE]
    image[PAGE_TABLE : PAGE_TABLE + 4096] = bytes(4096)
    kernel.memory[2 * MIB : 2 * MIB + IMAGE] = image
    info = find_by_contents(memory(kernel), "ram")
    assert info is not None
    assert not kernel.truth.items() - info.values.items()


def test_a_kernel_without_page_tables_is_none():
    kernel = make("aarch64")
    table = kernel.parts["page table"]
    kernel.memory[table.start : table.stop] = bytes(4096)
    assert find_by_contents(memory(kernel), "ram") is None


def two_kernels() -> tuple[SyntheticKernel, SyntheticKernel, FileMemory]:
    """Return two kernels in one memory: the first has left what the second found."""
    old = make("x86_64", size=20 * MIB)
    new = make("x86_64", size=20 * MIB, place=12 * MIB, moved=0x3000000)
    end = old.place + IMAGE + MIB
    new.memory[:end] = old.memory[:end]
    return old, new, memory(new)


def test_two_kernels_are_refused():
    *_, ram = two_kernels()
    with pytest.raises(FormatError, match="2 kernels without a note, expected one"):
        find_by_contents(ram, "ram")


@pytest.mark.parametrize("number", [0, 1])
def test_registers_tell_which_of_two_kernels_runs(number):
    *kernels, ram = two_kernels()
    running = kernels[number]
    root = running.physical + PAGE_TABLE
    notes = [Note("QEMU", 0, struct.pack("<416xQ16x", root))]
    info = find_by_contents(ram, "ram", notes)
    assert info is not None
    assert info.kernel_offset == running.moved


@pytest.mark.parametrize(
    ("variable", "value", "size"), [("system_state", 0, 4), ("vmcoreinfo_note", 0, 8)]
)
def test_a_kernel_that_boots_is_not_settled(variable, value, size):
    """One that writes a VMCOREINFO has not done so yet, and will."""
    kernel = make("x86_64", variables={"vmcoreinfo_note": 0xFFFF914400100000})
    assert find_by_contents(memory(kernel), "ram", settled=lambda: True) is not None
    kernel.set(variable, value, size)
    assert find_by_contents(memory(kernel), "ram", settled=lambda: True) is None
    assert find_by_contents(memory(kernel), "ram") is not None
    kernel.set("panic_cpu", 1, 4)  # It will not write one any more.
    assert find_by_contents(memory(kernel), "ram", settled=lambda: True) is not None


def test_a_note_of_a_kernel_that_is_there_has_precedence():
    kernel = make("aarch64")
    made = find_by_contents(memory(kernel), "ram")
    assert made is not None
    text = made.raw + b"CRASHTIME=1\n"
    raw = vmcoreinfo_note(text)
    kernel.memory[0x1000 : 0x1000 + len(raw)] = raw
    found = find_kernel(memory(kernel), "ram")
    assert found is not None
    assert found.raw == text


@pytest.mark.parametrize(
    "line", ["NUMBER(kimage_voffset)", "SYMBOL(init_uts_ns)", "SYMBOL(swapper_pg_dir)"]
)
def test_a_note_that_is_disproven_is_not_believed(line):
    kernel = make("aarch64")
    made = find_by_contents(memory(kernel), "ram")
    assert made is not None
    wrong = int(made.values[line], 16) + 0x1000
    is_number = line.startswith("NUMBER")
    note = made.with_lines({line: f"{wrong:#x}" if is_number else f"{wrong:x}"})
    raw = vmcoreinfo_note(note.raw)
    kernel.memory[0x1000 : 0x1000 + len(raw)] = raw
    found = find_kernel(memory(kernel), "ram")
    assert found is not None
    assert found.values == made.values


def junk(size: int) -> bytes:
    """What an unprivileged process can fill its memory with."""
    return (bytes(4) + b"VMCOREINFO\0\0OSRELEASE=").ljust(28, b"\n") * (size // 28)


def headed(size: int) -> bytes:
    """The same with headers that claim much text."""
    one = struct.pack("<III", 11, 60000, 0) + b"VMCOREINFO\0\0OSRELEASE=6\n"
    return one.ljust(40, b"\n") * (size // 40)


def whole(size: int) -> bytes:
    """Whole notes, each different, of kernels that are nowhere."""
    text = b"OSRELEASE=%d\nPAGESIZE=4096\nSYMBOL(init_uts_ns)=ffffffff81000000\n"
    text += b"SYMBOL(swapper_pg_dir)=ffffffff81001000\nNUMBER(phys_base)=0\n"
    text += b"KERNELOFFSET=0\n"
    notes = (vmcoreinfo_note(text % i).ljust(256, b"\0") for i in range(size // 256))
    return b"".join(notes)


@pytest.mark.parametrize("fill", [junk, headed, whole])
@pytest.mark.parametrize("noted", [False, True])
def test_processes_cannot_hide_their_kernel(fill, noted):
    """They fill memory before and behind its note."""
    kernel = make("x86_64")
    size = 12 * MIB
    lines = kernel.truth if noted else {}
    text = "".join(f"{name}={value}\n" for name, value in lines.items()).encode()
    note = vmcoreinfo_note(text).ljust(4096, b"\0") if noted else b""
    kernel.memory.extend(fill(size).ljust(size, b"\0") + note + fill(size))
    kernel.size = len(kernel.memory)
    started = time.process_time()
    found = find_kernel(memory(kernel), "ram")
    assert found is not None
    assert not kernel.truth.items() - found.values.items()
    assert time.process_time() - started < 10


PREFERRED = range(0x258, 0x260)
"""
Bytes of boot_params that say what address an image is linked for. Nothing else in
memory does, so one that is wrong, but aligned, cannot be noticed.
"""


def damageable(kernel: SyntheticKernel) -> list[range]:
    """Return everything that the kernel is known by, each as likely as the others."""
    tables = sorted(kernel.tables.places.values())
    start = kernel.parts["kallsyms"].start
    ends = [*tables[1:], len(kernel.tables.data)]
    parts = [range(start + a, start + b) for a, b in zip(tables, ends, strict=True)]
    params = kernel.parts["boot_params"].start
    parts += [range(params + 0x1FE, params + PREFERRED.start)]
    return parts + [
        part
        for name, part in kernel.parts.items()
        if name not in ("kallsyms", "boot_params")
    ]


@given(data=st.data())
def test_damage_is_refused_or_read_right(data):
    """Whichever byte of what a kernel is known by is wrong, no line is."""
    arch = data.draw(st.sampled_from(["x86_64", "aarch64"]))
    order, alignment = data.draw(st.sampled_from([it.values for it in LAYOUTS]))
    kernel = kept(arch, order=order, alignment=alignment)
    part = data.draw(st.sampled_from(damageable(kernel)))
    damaged = bytearray(kernel.memory)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(part.start, part.stop - 1))
        damaged[at] ^= data.draw(st.integers(1, 255))
    ram = memory(kernel, bytes(damaged))
    info = None
    with suppress(FormatError):
        info = find_by_contents(ram, "ram")
    ram.close()
    found = info.values if info is not None else {}
    assert not found.items() - kernel.truth.items()


PROVEN = re.compile(
    r"OSRELEASE|PAGESIZE|SYMBOL\((init_uts_ns|swapper_pg_dir|_stext|kallsyms_\w+)\)"
    r"|NUMBER\((phys_base|kimage_voffset|VA_BITS|TCR_EL1_T1SZ|PHYS_OFFSET)\)"
)
"""Lines of a note that a memory proves; the others are believed."""


@given(data=st.data())
def test_damage_to_a_note_is_noticed(data):
    """Of what all else depends on, nothing is wrong."""
    kernel = kept(data.draw(st.sampled_from(["x86_64", "aarch64"])))
    lines = [f"{key}={value}\n" for key, value in kernel.truth.items()]
    chosen = data.draw(
        st.sampled_from([i for i, it in enumerate(lines) if PROVEN.match(it)])
    )
    line = bytearray(lines[chosen].encode())
    at = data.draw(st.integers(0, len(line) - 1))
    line[at] = data.draw(st.sampled_from(b"0123456789abcdefxS(=)\n\0\xff"))
    text = "".join(lines[:chosen]).encode() + line
    raw = vmcoreinfo_note(text + "".join(lines[chosen + 1 :]).encode())
    damaged = bytearray(kernel.memory)
    damaged[0x1000 : 0x1000 + len(raw)] = raw
    ram = memory(kernel, bytes(damaged))
    info = None
    with suppress(FormatError):
        info = find_kernel(ram, "ram")
    ram.close()
    found = info.values if info is not None else {}
    known = {key for key in kernel.truth if PROVEN.fullmatch(key)}
    wrong = {key for key in known & found.keys() if found[key] != kernel.truth[key]}
    # What is no number is refused when it is used.
    assert not {key for key in wrong if re.fullmatch(r"-?(0x)?[0-9a-f]+", found[key])}
