# SPDX-License-Identifier: GPL-2.0-or-later
"""
Registers of a CPU as KVM gives them on x86-64, in snapshots of monitors that use KVM.

``struct kvm_regs`` and ``struct kvm_sregs`` of Linux arch/x86/include/uapi/asm/kvm.h.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from kmemdump.errors import FormatError

__all__ = ["REGS_SIZE", "SREGS_SIZE", "KvmCpu", "parse_cpu"]

# fmt: off
_REGS = (
    "RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RSP", "RBP", "R8", "R9", "R10", "R11",
    "R12", "R13", "R14", "R15", "RIP", "RFL",
)
# fmt: on
_SEGMENTS = ("CS", "DS", "ES", "FS", "GS", "SS", "TR", "LDT")
_SEGMENT = struct.Struct("<QIH8B2x")
_TABLE = struct.Struct("<QH6x")
_CONTROL = struct.Struct("<7Q32x")
REGS_SIZE = 8 * len(_REGS)
SREGS_SIZE = _SEGMENT.size * len(_SEGMENTS) + 2 * _TABLE.size + _CONTROL.size

_ALWAYS_SET = 1 << 1  # X86_EFLAGS_FIXED
_LONG_MODE = 1 << 10  # EFER_LMA
_PAGE = 4095


@dataclass(frozen=True, slots=True)
class KvmCpu:
    """A CPU in 64-bit mode."""

    registers: dict[str, int]
    """Values by the names that QEMU prints; ``FS.base`` is the base of a segment."""
    page_table: int
    """Physical address of its page table."""


def parse_cpu(regs: bytes, sregs: bytes, where: str) -> KvmCpu:
    """
    Parse the registers of one CPU.

    :raises FormatError: If they are not those of a CPU in 64-bit mode.
    """
    if (len(regs), len(sregs)) != (REGS_SIZE, SREGS_SIZE):
        raise FormatError(
            where,
            f"registers of {len(regs)} and {len(sregs)} bytes, "
            f"expected {REGS_SIZE} and {SREGS_SIZE}",
        )
    registers = dict(zip(_REGS, struct.unpack(f"<{len(_REGS)}Q", regs), strict=True))
    for number, name in enumerate(_SEGMENTS):
        base, _, selector, *_ = _SEGMENT.unpack_from(sregs, number * _SEGMENT.size)
        registers[name] = selector
        registers[f"{name}.base"] = base
    offset = SREGS_SIZE - _CONTROL.size
    _, _, table, _, _, efer, _ = _CONTROL.unpack_from(sregs, offset)
    if not (registers["RFL"] & _ALWAYS_SET and efer & _LONG_MODE):
        raise FormatError(where, "a CPU that is not in 64-bit mode, or no registers")
    return KvmCpu(registers, table & ~_PAGE)
