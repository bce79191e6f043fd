# SPDX-License-Identifier: GPL-2.0-or-later
"""x86-64. drgn is loaded late: reading files does not need it."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from kmemdump.arch.kernel_image import KernelImage
from kmemdump.arch.pagetable import PageTable, translate
from kmemdump.arch.x86_64_lines import IMAGE_SYMBOLS, address_lines
from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.formats.elf import EM_X86_64, Note
from kmemdump.formats.xen_core import CONTEXT_NOTE, CONTEXT_SIZE, parse_context
from kmemdump.memory.physical import Memory
from kmemdump.memory.ranges import ADDRESS_SPACE, Alias, Extent, Range, round_up
from kmemdump.vmcoreinfo import VmcoreInfo

if TYPE_CHECKING:
    from drgn import Architecture, Object, Program

__all__ = ["X86_64"]

# Linux Documentation/arch/x86/x86_64/mm.rst.
_IMAGE_MAP = 0xFFFFFFFF80000000  # __START_KERNEL_map
_IMAGE_SIZE = 512 << 20  # KERNEL_IMAGE_SIZE without CONFIG_RANDOMIZE_BASE.

# Linux arch/x86/include/asm/pgtable_types.h.
_PRESENT = 1 << 0
_PSE = 1 << 7
_ADDRESS = ((1 << 52) - 1) & -4096

_QEMU_CR3 = struct.Struct("<416xQ16x")
"""The third control register in QEMUCPUState (QEMU's target/i386/arch_dump.c)."""

_1G, _2M, _4G = 1 << 30, 1 << 21, 1 << 32
_LOW_RAM = (0x80000000, 0xC0000000, 0xB0000000, 0xE0000000, 0xD0000000)
"""
Where low RAM of VMs ends: QEMU's q35 (2 GiB) and pc (3 GiB), each without alignment to
1 GiB (2.75 and 3.5 GiB), and Firecracker (3.25 GiB).
"""
_MAX_CONTIGUOUS_RAM = 0x80000000
"""No VM with at most this much RAM has a gap."""
_RESERVED = 128 << 20
"""Most bytes that firmware reserves at the end of a range of RAM."""

_MAX_PHYSICAL = 1 << 46
"""MAX_PHYSMEM_BITS with page tables of 4 levels; no VM has more."""
_MAX_STACK = 1 << 17
_MWAIT = b"\x0f\x01\xc9"
_IF = 1 << 9  # X86_EFLAGS_IF


class X86_64:
    """x86-64, with page tables of 4 or 5 levels."""

    name = "x86_64"
    machine = EM_X86_64
    # struct elf_prstatus: 112 bytes before struct user_regs_struct, which has
    # 27 registers of 8 bytes (Linux arch/x86/include/asm/user_64.h).
    prstatus_size = 336
    # fmt: off
    registers = (
        "R15", "R14", "R13", "R12", "RBP", "RBX", "R11", "R10", "R9", "R8",
        "RAX", "RCX", "RDX", "RSI", "RDI", "",  # orig_rax
        "RIP", "CS", "RFL", "RSP", "SS", "FS.base", "GS.base", "DS", "ES", "FS", "GS",
    )
    # fmt: on
    # x86_cpu_dump_state() in QEMU's target/i386/cpu-dump.c; the other names are those
    # of 32-bit and 16-bit code, as of firmware.
    cpu_state = re.compile(
        r"\b[RE]IP=(?P<pc>[0-9a-f]{1,16}) [RE]FL=(?P<flags>[0-9a-f]{8})\b.*"
        r"\bCPL=(?:(?P<user>3)|[0-2])\b.*\bHLT=(?P<halted>[01])\b"
    )
    resets_by_fault = True
    flags = "rflags"
    stack_registers = ("RSP", "RBP")
    place_registers: tuple[str, ...] = ("RIP", "CS", "RFL", "RSP", "SS")
    pt_regs_size = 21 * 8
    unwind_tables: tuple[str, ...] = ("orc_unwind", "orc_unwind_ip", "orc_header")
    frame_pointer = "rbp"
    link_register = ""
    image_symbols: tuple[str, ...] = IMAGE_SYMBOLS
    image_is_alone = True

    @property
    def drgn(self) -> Architecture:
        from drgn import Architecture

        return Architecture.X86_64

    def matches(self, info: VmcoreInfo) -> bool:
        # Since Linux kernel commit 401721ecd1dc ("kexec: export the value of phys_base
        # instead of symbol address") (in v4.10).
        return "NUMBER(phys_base)" in info.values

    def image_address(self, info: VmcoreInfo, virtual: int) -> int:
        return (virtual - _IMAGE_MAP + info.number("phys_base")) % ADDRESS_SPACE

    def page_table(self, info: VmcoreInfo) -> PageTable:
        # Since Linux kernel commit eedb92abb9bb ("x86/mm: Make virtual memory
        # layout dynamic for CONFIG_X86_5LEVEL=y") (in v4.17) a kernel decides at boot.
        five_levels = _number(info, "pgtable_l5_enabled", 0) != 0
        shifts = (48, 39, 30, 21, 12) if five_levels else (39, 30, 21, 12)
        encrypted = self.encryption_mask(info)
        return PageTable(
            root=self.image_address(info, info.symbol("swapper_pg_dir")) & ~encrypted,
            base=ADDRESS_SPACE - (1 << (shifts[0] + 9)),
            first=256,
            shifts=shifts,
            leaf_shifts=frozenset((30, 21, 12)),
            entries=512,
            present=_PRESENT,
            page=_PRESENT,
            leaf=(_PSE, _PSE),
            address=_ADDRESS & ~encrypted,
        )

    def encryption_mask(self, info: VmcoreInfo) -> int:
        # The C-bit of AMD's SME and SEV; since Linux kernel commit 65f750e5457a
        # ("x86/kdump: Export the SME mask to vmcoreinfo") (in v5.1).
        return _number(info, "sme_mask", 0) & _ADDRESS

    def address_lines(self, image: KernelImage) -> Iterator[dict[str, str]]:
        return address_lines(image)

    def page_table_roots(self, notes: Iterable[Note]) -> Iterator[int]:
        for note in notes:
            if note.name == "QEMU" and len(note.desc) == _QEMU_CR3.size:
                yield _QEMU_CR3.unpack(note.desc)[0] & _ADDRESS
            elif note.name == CONTEXT_NOTE and len(note.desc) == CONTEXT_SIZE:
                yield parse_context(note.desc, CONTEXT_NOTE).page_table & _ADDRESS

    def image(self, info: VmcoreInfo) -> Alias:
        start = info.symbol("_stext") & -(2 << 20)  # PMD_SIZE
        # Modules follow the image.
        end = _IMAGE_MAP + _number(info, "KERNEL_IMAGE_SIZE", _IMAGE_SIZE)
        return Alias(start, self.image_address(info, start), max(end - start, 0))

    def direct_map(
        self, info: VmcoreInfo, variable: Callable[[str], int | None]
    ) -> Alias | None:
        # Both are random. vmalloc's area comes next, after the largest possible direct
        # map.
        start, end = variable("page_offset_base"), variable("vmalloc_base")
        if start is None or end is None:
            return None
        return Alias(start, 0, max(end - start, 0))

    def direct_map_in(self, info: VmcoreInfo, memory: Memory) -> Alias | None:
        try:
            virtual = info.symbol("mem_section")  # Allocated, so in the direct map.
            physical = translate(self.page_table(info), memory.read, virtual)
        except (FormatError, NotCapturedError):
            return None
        # KASLR moves the direct map by PUD_SIZE (arch/x86/mm/kaslr.c).
        if physical is None or (virtual - physical) % _1G:
            return None
        return Alias(virtual - physical, 0, _MAX_PHYSICAL)

    def likely_memory_maps(self, size: int) -> Iterator[list[Extent]]:
        for low in _LOW_RAM:
            if size > low:
                yield [Extent(0, low, 0), Extent(_4G, size - low, low)]
        yield [Extent(0, size, 0)]

    def is_memory_map(self, info: VmcoreInfo, memory: Memory) -> bool:
        """
        Return whether the kernel maps all RAM that *memory* has, and nothing beyond.

        Memory that firmware reserved at the end of a range is not mapped.
        """
        if sum(item.size for item in memory.ranges) <= _MAX_CONTIGUOUS_RAM:
            return True
        direct = self.direct_map_in(info, memory)
        if direct is None:
            return False
        try:
            table = self.page_table(info)

            def is_mapped(address: int) -> bool:
                virtual = direct.virtual + address
                return translate(table, memory.read, virtual) == address

            return all(
                not is_mapped(item.end)
                and any(
                    is_mapped(address)
                    for address in range(
                        item.end - _2M, max(item.start, item.end - _RESERVED) - 1, -_2M
                    )
                )
                for item in memory.ranges
            )
        except (FormatError, NotCapturedError):
            return False

    def interrupt_stack(self, prog: Program, cpu: int) -> Range | None:
        from drgn.helpers.linux.percpu import per_cpu

        # In pcpu_hot since Linux kernel commit d7b6d709a76a ("x86/percpu: Move
        # irq_stack variables next to current_task") (in v6.2), before (and again
        # later) a per-CPU variable of its own. It points to the last word.
        try:
            top = per_cpu(prog["pcpu_hot"], cpu).hardirq_stack_ptr.value_()
        except LookupError:
            try:
                top = per_cpu(prog["hardirq_stack_ptr"], cpu).value_()
            except LookupError:
                return None
        size = prog["THREAD_SIZE"].value_()
        return Range((round_up(top, 4096) - size) % ADDRESS_SPACE, size)

    def exception_stacks(self, prog: Program, cpu: int) -> Iterator[Range]:
        from drgn.helpers.linux.percpu import per_cpu

        try:
            entries = prog["cpu_tss_rw"]
        except LookupError:
            return
        # EXCEPTION_STKSZ is 4096 << KASAN order; guard pages lie between.
        for top in per_cpu(entries, cpu).x86_tss.ist:
            end = top.value_()
            if end:
                yield Range(max(end - _MAX_STACK, 0), min(end, _MAX_STACK))

    def saved_stack_pointer(self, task: Object) -> int:
        return int(task.thread.sp.value_())

    def idle_preempt_count(self, prog: Program, cpu: int) -> Object:
        from drgn.helpers.linux.percpu import per_cpu

        try:
            return per_cpu(prog["__preempt_count"], cpu)
        except LookupError:
            # Linux kernel commit 64701838bf05 ("x86/percpu: Move preempt_count next to
            # current_task") (in v6.2); a variable of its own again since v6.15.
            return per_cpu(prog["pcpu_hot"], cpu).preempt_count

    def module_tables(self, module: Object) -> Iterator[Range]:
        from drgn import FaultError

        try:
            # struct orc_entry, and an int.
            count = module.arch.num_orcs.value_()
            yield Range(module.arch.orc_unwind.value_(), count * 6)
            yield Range(module.arch.orc_unwind_ip.value_(), count * 4)
        except (FaultError, AttributeError, LookupError):
            return  # CONFIG_UNWINDER_ORC is not set.

    def interrupts_enabled(self, registers: Mapping[str, int]) -> bool | None:
        flags = registers.get("rflags")
        return None if flags is None else bool(flags & _IF)

    def is_kernel_address(self, address: int) -> bool:
        return address >> 56 == 0xFF  # Of 57 bits with 5 levels of page tables.

    def is_waiting(self, read: Callable[[int, int], bytes], pc: int) -> bool:
        # HLT is seen otherwise. If something ended the wait, the next one is at pc.
        return _MWAIT in (read(pc - len(_MWAIT), len(_MWAIT)), read(pc, len(_MWAIT)))

    def untagged(self, address: int) -> int:
        return address

    def registers_at(self, address: int) -> dict[str, int]:
        return {"ip": address, "cs": 0x10}  # __KERNEL_CS


def _number(info: VmcoreInfo, name: str, default: int) -> int:
    return info.number(name) if f"NUMBER({name})" in info.values else default
