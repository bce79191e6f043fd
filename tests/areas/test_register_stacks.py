# SPDX-License-Identifier: GPL-2.0-or-later
"""Stacks found from registers, in memory made by hand."""

import contextlib
import io
import struct

import pytest
from drgn import Object

from kmemdump.areas.register_stacks import stacks_in_registers
from kmemdump.kernel.program import core_program
from kmemdump.kernel.tasks import register_values, stack_of_registers, task_address
from kmemdump.vmcoreinfo import VmcoreInfo
from rigs.synthetic import vmcoreinfo

X86_64, AARCH64 = 62, 183
STACK = 0xFFFF_C900_0010_0000
IRQ = 0xFFFF_C900_0030_0000
TEXT = 0xFFFF_FFFF_8100_0123
SIZE = 16384


def info(page_size=4096):
    lines = {"PAGESIZE": str(page_size), "NUMBER__VA_BITS": "48"}
    return VmcoreInfo.parse(vmcoreinfo(**lines), "test")


def x86_64(**registers):
    """An NT_PRSTATUS, by the offsets of struct user_regs_struct."""
    places = {"rbp": 4, "rip": 16, "cs": 17, "rsp": 19}
    data = bytearray(336)
    for name, value in registers.items():
        struct.pack_into("<Q", data, 112 + 8 * places[name], value)
    return bytes(data)


def aarch64(sp, pc, fp):
    data = bytearray(392)
    struct.pack_into("<Q", data, 112 + 8 * 29, fp)
    struct.pack_into("<QQQ", data, 112 + 8 * 31, sp, pc, 0x3C5)
    return bytes(data)


def stack(**words):
    """A stack with some words, by their distance from its end."""
    data = bytearray(SIZE)
    for distance, value in words.items():
        struct.pack_into("<Q", data, SIZE - int(distance[1:]), value)
    return bytes(data)


def found(registers, segments, machine=X86_64, page_size=4096):
    prog = core_program(machine, info(page_size), "test", registers, segments)
    with contextlib.redirect_stdout(io.StringIO()) as output:
        stacks_in_registers(prog)
    return [
        (int(start, 16), int(end, 16))
        for start, end in (line.split("-") for line in output.getvalue().split())
    ]


WHOLE = (STACK, STACK + SIZE)
WHOLE_IRQ = (IRQ, IRQ + SIZE)


def test_stack_pointer():
    segments = [(STACK, stack())]
    assert found([x86_64(rsp=STACK + 0x1238)], segments) == [WHOLE]
    assert found([x86_64(rsp=STACK)], segments) == [WHOLE]
    # Of each CPU.
    both = [x86_64(rsp=STACK + 8), x86_64(rsp=IRQ + 8)]
    assert found(both, [*segments, (IRQ, stack())]) == [WHOLE, WHOLE_IRQ]


@pytest.mark.parametrize(
    "pointer", [0, 0x7FFF12345678, STACK - 8, STACK + SIZE, STACK + 4, (1 << 64) - 8]
)
def test_no_stack(pointer):
    registers = [x86_64(rsp=pointer, rbp=pointer), b"", b"short", bytes(336)]
    assert found(registers, [(STACK, stack())]) == []


def test_from_the_interrupt_stack_to_the_task():
    before = STACK + 0x3F10
    for words in ({"d8": before}, {"d8": 0x18, "d16": before}):
        segments = [(STACK, stack(d8=0x2B, d16=0x7FFC1234)), (IRQ, stack(**words))]
        assert found([x86_64(rsp=IRQ + 0x3000)], segments) == [WHOLE, WHOLE_IRQ]


def test_by_frame_records():
    frame, caller = STACK + SIZE - 0x100, IRQ + SIZE - 0x80
    first = stack(d256=caller, d248=TEXT)
    segments = [(STACK, first), (IRQ, stack(d128=0, d120=TEXT))]
    registers = x86_64(rsp=STACK + 0x2000, rbp=frame)
    assert found([registers], segments) == [WHOLE, WHOLE_IRQ]
    # The register has another use.
    segments[0] = (STACK, stack(d256=caller, d248=77))
    assert found([registers], segments) == [WHOLE]


def test_damaged_stacks_lead_nowhere():
    """Frame records that form a circle, and stacks that lead to more and more."""
    circle = stack(d256=STACK + SIZE - 0x100, d248=TEXT)
    registers = x86_64(rsp=STACK, rbp=STACK + SIZE - 0x100)
    assert found([registers], [(STACK, circle)]) == [WHOLE]
    starts = [STACK + 0x100000 * i for i in range(20)]
    segments = [(start, stack(d8=start + 0x100010)) for start in starts]
    assert len(found([x86_64(rsp=STACK)], segments)) == 4


def test_a_large_stack_and_none_at_all_around():
    """With KASAN, or in the direct map, where no guard pages are."""
    segments = [(STACK - SIZE, bytes(8 * SIZE))]
    expected = [(STACK, STACK + 2 * SIZE)]
    assert found([x86_64(rsp=STACK + 0x100)], segments) == expected
    # Pages of 64 KiB.
    size = 1 << 16
    place = found([aarch64(STACK + 0x100, TEXT, 0)], segments, AARCH64, size)
    assert place == [(STACK, STACK + 7 * SIZE)]


def test_tagged_pointers():
    """KASAN keeps a tag in the top byte of an Arm pointer."""
    tag = 0x0BFF_FFFF_FFFF_FFFF  # Clears four bits.
    frame, caller = STACK + SIZE - 0x100, IRQ + SIZE - 0x80
    segments = [
        (STACK, stack(d256=caller & tag, d248=TEXT)),
        (IRQ, stack(d128=frame & tag, d120=TEXT)),
    ]
    registers = aarch64(STACK + 0x2000 & tag, TEXT, frame & tag)
    assert found([registers], segments, AARCH64) == [WHOLE, WHOLE_IRQ]


def test_what_drgn_does_with_tags():
    """It reads with any tag, and compares pointers with theirs; we do without."""
    tagged = STACK & 0x0BFF_FFFF_FFFF_FFFF
    prog = core_program(AARCH64, info(), "test", [], [(STACK, b"8 bytes!")])
    assert prog.read(tagged, 8) == b"8 bytes!"
    pointers = [
        Object(prog, prog.pointer_type(prog.void_type()), value=address)
        for address in (tagged, STACK)
    ]
    assert [it.value_() for it in pointers] == [tagged, STACK]
    assert [task_address(it) for it in pointers] == [STACK, STACK]


def test_values():
    prog = core_program(X86_64, info(), "test", [x86_64(rsp=1, rip=2), b"", bytes(336)])
    values = list(register_values(prog))
    assert [(it["RSP"], it["RIP"]) for it in values] == [(1, 2), (0, 0)]


@pytest.mark.parametrize("machine", [X86_64, AARCH64])
def test_trace_without_types(machine):
    """drgn knows the members of struct pt_regs, and follows frame records."""
    at = [STACK + SIZE - distance for distance in (0x100, 0x80)]
    words = stack(d256=at[1], d248=TEXT + 8, d128=0, d120=TEXT + 16)
    if machine == X86_64:
        registers = x86_64(rsp=STACK + 0x2000, rip=TEXT, rbp=at[0], cs=0x10)
    else:
        registers = aarch64(STACK + 0x2000, TEXT, at[0])
    prog = core_program(machine, info(), "test", [registers], [(STACK, words)])
    trace = [frame.pc for frame in stack_of_registers(prog, 0)]
    assert trace[:2] == [TEXT, TEXT + 8]
