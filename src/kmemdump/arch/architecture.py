# SPDX-License-Identifier: GPL-2.0-or-later
"""The differences between architectures: one small file for each."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from kmemdump.arch.aarch64 import Aarch64
from kmemdump.arch.kernel_image import KernelImage
from kmemdump.arch.pagetable import PageTable
from kmemdump.arch.x86_64 import X86_64
from kmemdump.errors import FormatError, UnsupportedError
from kmemdump.formats.elf import Note
from kmemdump.memory.physical import Memory
from kmemdump.memory.ranges import Alias, Extent, Range
from kmemdump.vmcoreinfo import VmcoreInfo

if TYPE_CHECKING:
    from drgn import Architecture, Object, Program

__all__ = [
    "ARCHES",
    "Arch",
    "arch_from_elf",
    "arch_from_info",
    "arch_from_name",
    "arch_from_program",
    "image_address",
    "pack_prstatus",
]

_PID = struct.Struct("<32xi76x")
"""``struct elf_prstatus`` before its registers."""


class Arch(Protocol):
    """One architecture."""

    name: str
    """As ``uname -m`` and QEMU print it."""
    machine: int
    """``e_machine`` of its ELF files."""
    prstatus_size: int
    """Size of ``struct elf_prstatus`` in bytes."""
    cpu_state: re.Pattern[str]
    """
    A CPU in the output of QEMU's ``info registers -a``.

    Groups: ``pc`` in hexadecimal; ``user``, which matches in user mode only;
    ``halted``, 0 or 1, where QEMU prints whether the CPU waits for an interrupt; and
    ``flags`` in hexadecimal, the register for :meth:`interrupts_enabled`.
    """
    flags: str
    """That register, as drgn names it."""
    resets_by_fault: bool
    """
    Whether the processor resets itself if it can report neither an exception nor the
    one that follows (a triple fault).
    """
    stack_registers: tuple[str, str]
    """Of :attr:`registers`, the stack pointer and the frame pointer."""
    place_registers: tuple[str, ...]
    """Of :attr:`registers`, those that say where a CPU was, and in which mode."""
    pt_regs_size: int
    """Smallest ``struct pt_regs`` in bytes, whose members are those of registers."""
    unwind_tables: tuple[str, ...]
    """Tables for drgn's unwinder, between the symbols __start_NAME and __stop_NAME."""
    frame_pointer: str
    """drgn's name of the register that points to the frame record."""
    link_register: str
    """drgn's name of the register that a call puts the return address in, if any."""
    image_symbols: tuple[str, ...]
    """Symbols that :meth:`address_lines` needs, or makes use of."""
    image_is_alone: bool
    """Whether nothing else is mapped in the range that :meth:`image` returns."""

    @property
    def registers(self) -> Sequence[str]:
        """
        Names in QEMU's ``info registers`` of the registers of ``struct elf_prstatus``.

        Empty for a register without a name; ``.base`` is the base of a segment.
        """

    @property
    def drgn(self) -> Architecture:
        """The architecture as drgn names it."""

    def matches(self, info: VmcoreInfo) -> bool:
        """Return whether *info* is a VMCOREINFO of this architecture."""

    def image_address(self, info: VmcoreInfo, virtual: int) -> int:
        """Return the physical address of a virtual address in the kernel's image."""

    def page_table(self, info: VmcoreInfo) -> PageTable:
        """
        Find the page table that maps all of the kernel's memory.

        :raises NotCapturedError: If *info* lacks its address.
        """

    def encryption_mask(self, info: VmcoreInfo) -> int:
        """
        Return the bits of a physical address in a page table that are none of it: they
        say that the memory is encrypted.
        """

    def address_lines(self, image: KernelImage) -> Iterator[dict[str, str]]:
        """
        Yield likely lines of VMCOREINFO about the addresses of a kernel without one.

        The right ones are those whose page table maps the image to itself.

        :param image: Has the symbols that :attr:`image_symbols` names.
        :raises FormatError: If a symbol is missing that every kernel has.
        """

    def page_table_roots(self, notes: Iterable[Note]) -> Iterator[int]:
        """Yield the addresses of the CPUs' page tables, if a dump's notes have them."""

    def image(self, info: VmcoreInfo) -> Alias:
        """
        Return the alias of the kernel's image, which may end earlier.

        :raises NotCapturedError: If *info* lacks its address.
        """

    def direct_map(
        self, info: VmcoreInfo, variable: Callable[[str], int | None]
    ) -> Alias | None:
        """
        Return the direct map; None if neither *info* nor the kernel gives its address.

        :param variable: Returns the value of a kernel variable of 8 bytes, None if it
            cannot be read.
        """

    def direct_map_in(self, info: VmcoreInfo, memory: Memory) -> Alias | None:
        """Return the direct map as *info*, or a page table in *memory*, shows it."""

    def likely_memory_maps(self, size: int) -> Iterator[list[Extent]]:
        """Yield likely memory maps of *size* bytes of RAM, contiguous in a file."""

    def is_memory_map(self, info: VmcoreInfo, memory: Memory) -> bool:
        """Return whether *memory*, which has the image, has the right memory map."""

    def interrupt_stack(self, prog: Program, cpu: int) -> Range | None:
        """Return the stack that a CPU takes interrupts on, if it has one."""

    def exception_stacks(self, prog: Program, cpu: int) -> Iterator[Range]:
        """
        Yield the stacks that a CPU takes other exceptions on, by virtual address.

        They grow down; pages at the start of the range may not be mapped.
        """

    def saved_stack_pointer(self, task: Object) -> int:
        """Return what the last switch to another task saved of a task."""

    def idle_preempt_count(self, prog: Program, cpu: int) -> Object:
        """
        Return preempt_count of a CPU that runs its idle task.

        :raises LookupError: If the kernel has it elsewhere.
        """

    def module_tables(self, module: Object) -> Iterator[Range]:
        """Yield the virtual ranges of a module's tables that drgn needs to unwind."""

    def interrupts_enabled(self, registers: Mapping[str, int]) -> bool | None:
        """Return whether a CPU takes interrupts; None if the register is unknown."""

    def is_kernel_address(self, address: int) -> bool:
        """Return whether a pointer is one into the kernel's half of virtual memory."""

    def is_waiting(self, read: Callable[[int, int], bytes], pc: int) -> bool:
        """
        Return whether a CPU is at an instruction by which it waits.

        It then waits for an interrupt, even if interrupts are off, or for its host.

        :param read: Reads (virtual address, size) of the kernel's memory; what it
            raises is passed on.
        """

    def untagged(self, address: int) -> int:
        """
        Return an address without what it may carry in bits that are not translated.

        To be used wherever an address out of memory is compared with another one.
        """

    def registers_at(self, address: int) -> dict[str, int]:
        """Return the members of ``struct pt_regs`` of kernel code at an address."""


ARCHES: tuple[Arch, ...] = (X86_64(), Aarch64())


def arch_from_elf(machine: int) -> Arch:
    """
    Return the architecture of an ELF file.

    :param machine: ``e_machine``.
    :raises UnsupportedError: If it is not supported.
    """
    for arch in ARCHES:
        if arch.machine == machine:
            return arch
    known = ", ".join(f"{arch.machine} ({arch.name})" for arch in ARCHES)
    raise UnsupportedError(f"ELF machine {machine} is not supported, only {known}")


def arch_from_name(name: str) -> Arch:
    """
    Return an architecture.

    :param name: As ``uname -m`` prints it.
    :raises UnsupportedError: If it is not supported.
    """
    for arch in ARCHES:
        if arch.name == name:
            return arch
    known = ", ".join(arch.name for arch in ARCHES)
    raise UnsupportedError(f"architecture {name[:20]} is not supported, only {known}")


def arch_from_info(info: VmcoreInfo) -> Arch:
    """
    Return the architecture of the kernel that wrote a VMCOREINFO.

    :raises FormatError: If it is not supported.
    """
    for arch in ARCHES:
        if arch.matches(info):
            return arch
    known = " or ".join(arch.name for arch in ARCHES)
    raise FormatError(
        info.source, f"VMCOREINFO of an unknown architecture, expected {known}"
    )


def arch_from_program(prog: Program) -> Arch:
    """
    Return the architecture of a program.

    :raises UnsupportedError: If it is not supported.
    """
    from drgn import Architecture  # Loaded late: reading files does not need it.

    found = prog.platform.arch if prog.platform else Architecture.UNKNOWN
    for arch in ARCHES:
        if arch.drgn == found:
            return arch
    raise UnsupportedError(f"a program of {found}, which is not supported")


def image_address(info: VmcoreInfo, virtual: int) -> int:
    """
    Return the physical address of a virtual address in the kernel's image.

    :param virtual: Virtual address, for example of a ``SYMBOL()``.
    :raises FormatError: If *info* lacks the image's address.
    """
    return arch_from_info(info).image_address(info, virtual)


def pack_prstatus(arch: Arch, number: int, registers: Mapping[str, int]) -> bytes:
    """
    Return the ``struct elf_prstatus`` of a CPU.

    :param number: Number of the CPU, from 1 on, as in QEMU's dumps.
    :param registers: Values by the names in :attr:`Arch.registers`.
    :raises KeyError: If one is missing.
    """
    values = [registers[name] if name else 0 for name in arch.registers]
    data = _PID.pack(number) + struct.pack(f"<{len(values)}Q", *values)
    return data.ljust(arch.prstatus_size, b"\0")
