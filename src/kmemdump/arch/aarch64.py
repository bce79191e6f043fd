# SPDX-License-Identifier: GPL-2.0-or-later
"""
AArch64, which the kernel calls arm64.

drgn is loaded late: reading files does not need it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from typing import TYPE_CHECKING

from kmemdump.arch.aarch64_lines import (
    IMAGE_SYMBOLS,
    address_lines,
    least_va_bits,
    page_end,
)
from kmemdump.arch.kernel_image import KernelImage
from kmemdump.arch.pagetable import PageTable
from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.formats.elf import EM_AARCH64, Note
from kmemdump.memory.physical import Memory
from kmemdump.memory.ranges import ADDRESS_SPACE, Alias, Extent, Range
from kmemdump.vmcoreinfo import VmcoreInfo

if TYPE_CHECKING:
    from drgn import Architecture, Object, Program

__all__ = ["Aarch64"]

_IMAGE_SIZE = 128 << 20
"""Reach of a call (the instruction BL), which limits the size of the kernel's text."""

# Arm Architecture Reference Manual (DDI 0487), VMSAv8-64 translation table format.
_VALID = 1 << 0
_TABLE = 1 << 1  # A table; in the last level a page. If clear, a block, or reserved.
_BLOCK_SHIFTS = {12: (30, 21), 14: (25,), 16: (29,)}
_LARGE_BLOCK_SHIFT = {12: 39, 14: 36, 16: 42}
"""Further shifts with addresses of 52 bits (FEAT_LPA2; FEAT_LPA for 64 KiB)."""

_EL1H = 5  # PSR_MODE_EL1h
_PSR_I = 1 << 7  # PSR_I_BIT

_UNTAGGED = (1 << 56) - 1

# Arm Architecture Reference Manual: masks and values of WFI, WFIT, and of HVC and SMC,
# by which firmware or a host takes a CPU offline.
_WAITS = (
    (0xFFFFFFFF, 0xD503207F),
    (0xFFFFFFE0, 0xD5031020),
    (0xFFE0001F, 0xD4000002),
    (0xFFE0001F, 0xD4000003),
)

_RAM = (0x40000000, 0x80000000, 0)
"""Starts of RAM: QEMU's virt and many boards, Qualcomm and Firecracker, others."""


class Aarch64:
    """AArch64, with pages of 4, 16 or 64 KiB and addresses of 36 to 52 bits."""

    name = "aarch64"
    machine = EM_AARCH64
    # struct elf_prstatus: 112 bytes before struct user_pt_regs, which has 31
    # registers, sp, pc and pstate (Linux arch/arm64/include/uapi/asm/ptrace.h).
    prstatus_size = 392
    registers = (*(f"X{i:02}" for i in range(31)), "SP", "PC", "PSTATE")
    # aarch64_cpu_dump_state() in QEMU's target/arm/cpu.c; it does not print WFI.
    cpu_state = re.compile(
        r"^ *PC=(?P<pc>[0-9a-f]{16})\b(?s:.*?)"
        r"\bPSTATE=(?P<flags>[0-9a-f]{8})\b.*\bEL(?:(?P<user>0)|[1-3])[th]\b",
        re.M,
    )
    resets_by_fault = False
    flags = "pstate"
    stack_registers = ("SP", "X29")
    place_registers: tuple[str, ...] = ("SP", "PC", "PSTATE")
    pt_regs_size = 34 * 8  # Up to struct user_pt_regs, which comes first.
    unwind_tables: tuple[str, ...] = ()  # Frame pointers suffice.
    frame_pointer = "x29"
    link_register = "x30"
    image_symbols: tuple[str, ...] = IMAGE_SYMBOLS
    image_is_alone = False

    @property
    def drgn(self) -> Architecture:
        from drgn import Architecture

        return Architecture.AARCH64

    def matches(self, info: VmcoreInfo) -> bool:
        return "NUMBER(kimage_voffset)" in info.values

    def image_address(self, info: VmcoreInfo, virtual: int) -> int:
        return (virtual - info.number("kimage_voffset")) % ADDRESS_SPACE

    def page_table(self, info: VmcoreInfo) -> PageTable:
        page_shift = info.page_size.bit_length() - 1
        if page_shift not in _BLOCK_SHIFTS:
            raise FormatError(
                info.source, f"PAGESIZE={info.page_size}, expected 4096, 16384 or 65536"
            )
        # With pages of 64 KiB, swapper_pg_dir is laid out for the configured size even
        # if the CPU does not support it: Linux kernel commit c812026c54cf ("arm64: mm:
        # Logic to make offset_ttbr1 conditional") (in v5.4). With other sizes, there
        # are fewer levels then: commit 0dd4f60a2c76 ("arm64: mm: Add support for
        # folding PUDs at runtime") (in v6.9).
        configured, actual = _va_bits(info)
        va_bits = configured if page_shift == 16 else actual
        index_bits = page_shift - 3
        levels = -(-(va_bits - page_shift) // index_bits)
        shifts = [page_shift + index_bits * i for i in reversed(range(levels))]
        blocks = set(_BLOCK_SHIFTS[page_shift])
        address = (1 << 48) - (1 << page_shift)
        high = (0, 0)
        if page_shift == 16:
            high = (0xF000, 36)
            blocks.add(_LARGE_BLOCK_SHIFT[page_shift])
        elif va_bits == 52:
            # Such a kernel has physical addresses of 52 bits, too: Linux kernel commit
            # 352b0395b505 ("arm64: Enable 52-bit virtual addressing for 4k and 16k
            # granule configs") (in v6.9).
            address |= 3 << 48
            high = (0x300, 42)
            blocks.add(_LARGE_BLOCK_SHIFT[page_shift])
        return PageTable(
            root=self.image_address(info, info.symbol("swapper_pg_dir")),
            base=ADDRESS_SPACE - (1 << va_bits),
            first=0,
            shifts=tuple(shifts),
            leaf_shifts=frozenset(blocks | {page_shift}),
            entries=1 << index_bits,
            present=_VALID,
            page=_VALID | _TABLE,
            leaf=(_TABLE, 0),
            address=address,
            high=high,
            root_entries=1 << (va_bits - shifts[0]),
        )

    def encryption_mask(self, info: VmcoreInfo) -> int:
        return 0

    def address_lines(self, image: KernelImage) -> Iterator[dict[str, str]]:
        return address_lines(image)

    def page_table_roots(self, notes: Iterable[Note]) -> Iterator[int]:
        # TTBR1_EL1 has the kernel's root, but no note of QEMU has TTBR1_EL1.
        return iter(())

    def image(self, info: VmcoreInfo) -> Alias:
        start = info.symbol("_stext") & -(2 << 20)  # MIN_KIMG_ALIGN
        return Alias(start, self.image_address(info, start), _IMAGE_SIZE)

    def direct_map(
        self, info: VmcoreInfo, variable: Callable[[str], int | None]
    ) -> Alias | None:
        try:
            configured, actual = _va_bits(info)
            # memstart_addr, signed: KASLR moves it below the start of RAM.
            phys_offset = info.number("PHYS_OFFSET")
            text = info.symbol("_stext")
        except NotCapturedError:
            return None
        least = least_va_bits(configured, info.page_size.bit_length() - 1)
        start, end = ADDRESS_SPACE - (1 << actual), page_end(least)
        page_offset = ADDRESS_SPACE - (1 << configured)
        if text < end:
            # The upper half, before Linux kernel commit 14c127c957c1 ("arm64: mm: Flip
            # kernel VA space") (in v5.4).
            start, end = end, ADDRESS_SPACE
            page_offset = start
        # __phys_to_virt(), Linux arch/arm64/include/asm/memory.h.
        zero = (page_offset - phys_offset) % ADDRESS_SPACE
        if zero <= start:
            return Alias(start, start - zero, end - start)
        return Alias(zero, 0, max(end - zero, 0))

    def direct_map_in(self, info: VmcoreInfo, memory: Memory) -> Alias | None:
        return self.direct_map(info, lambda _variable: None)

    def likely_memory_maps(self, size: int) -> Iterator[list[Extent]]:
        for start in _RAM:
            yield [Extent(start, size, 0)]

    def is_memory_map(self, info: VmcoreInfo, memory: Memory) -> bool:
        return True  # There is one extent, and the image is in it.

    def interrupt_stack(self, prog: Program, cpu: int) -> Range | None:
        from drgn.helpers.linux.percpu import per_cpu

        try:
            start = per_cpu(prog["irq_stack_ptr"], cpu).value_()
        except LookupError:
            return None
        return Range(start, prog["THREAD_SIZE"].value_())

    def exception_stacks(self, prog: Program, cpu: int) -> Iterator[Range]:
        from drgn import sizeof
        from drgn.helpers.linux.percpu import per_cpu

        try:
            stack = per_cpu(prog["overflow_stack"], cpu)
        except LookupError:  # CONFIG_VMAP_STACK is not set.
            return
        yield Range(stack.address_, sizeof(stack))

    def saved_stack_pointer(self, task: Object) -> int:
        return int(task.thread.cpu_context.sp.value_())

    def idle_preempt_count(self, prog: Program, cpu: int) -> Object:
        from drgn.helpers.linux.percpu import per_cpu

        # Of the task. In the same union, its upper half is the flag that another task
        # should run.
        return per_cpu(prog["runqueues"], cpu).idle.thread_info.preempt.count

    def module_tables(self, module: Object) -> Iterator[Range]:
        return iter(())

    def interrupts_enabled(self, registers: Mapping[str, int]) -> bool | None:
        state = registers.get("pstate")
        return None if state is None else not state & _PSR_I

    def is_kernel_address(self, address: int) -> bool:
        return bool(address >> 55 & 1)  # A tag may be in the bits above (TBI).

    def is_waiting(self, read: Callable[[int, int], bytes], pc: int) -> bool:
        code = (read(pc - 4, 4), read(pc, 4))
        return any(
            int.from_bytes(item, "little") & mask == value
            for item, (mask, value) in product(code, _WAITS)
        )

    def untagged(self, address: int) -> int:
        # The top byte is not translated (TBI): KASAN_SW_TAGS and KASAN_HW_TAGS keep a
        # tag there, arch/arm64/include/asm/memory.h. Bit 55 says which half it is.
        sign = address >> 55 & 1
        return address & _UNTAGGED | (sign * 0xFF) << 56

    def registers_at(self, address: int) -> dict[str, int]:
        return {"pc": address, "pstate": _EL1H}


def _va_bits(info: VmcoreInfo) -> tuple[int, int]:
    """Return the bits of virtual addresses: as configured, and as used on the CPU."""
    configured = info.number("VA_BITS")
    # Since Linux kernel commit bbdbc11804ff ("arm64/crash_core: Export TCR_EL1.T1SZ in
    # vmcoreinfo") (in v5.9).
    try:
        actual = 64 - info.number("TCR_EL1_T1SZ")
    except NotCapturedError:
        actual = configured
    for key, value in (("VA_BITS", configured), ("64 - TCR_EL1_T1SZ", actual)):
        if not 36 <= value <= 52:
            raise FormatError(info.source, f"{key} is {value}, expected 36 to 52")
    return configured, actual
