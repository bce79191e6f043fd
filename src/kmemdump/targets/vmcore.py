# SPDX-License-Identifier: GPL-2.0-or-later
"""
Dumps that know what they are: ELF cores and LiME files.

ELF cores are those of this tool, /proc/vmcore and copies of it, and what QEMU's
dump-guest-memory writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kmemdump.arch.architecture import arch_of, get_arch, image_address
from kmemdump.coreimage.packed import find_packed
from kmemdump.errors import FormatError, NotCapturedError, TargetError, UnsupportedError
from kmemdump.formats.elf import (
    PT_LOAD,
    ElfCore,
    Note,
    ProgramHeader,
    parse_core,
)
from kmemdump.formats.lime import LIME_HEADER, parse_lime
from kmemdump.memory.physical import (
    PAGE_SIZE,
    Alias,
    Extent,
    FileMemory,
    JoinedMemory,
    Memory,
    flatten,
)
from kmemdump.targets.file import (
    FileTarget,
    OpenFile,
    check_whole,
    noted_vmcoreinfo,
)
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["open_elf", "open_lime", "physical_extents"]

_ADDRESS_END = 1 << 64
_MAX_NAMES = 4096
_NT_AUXV = 6
_NT_FILE = 0x46494C45


def open_elf(
    file: OpenFile, vmcoreinfo: VmcoreInfo | None = None, damaged: bool = False
) -> FileTarget:
    """
    Open an ELF core of a kernel.

    :param vmcoreinfo: To be used instead of what the core has.
    :param damaged: Whether it may be truncated.
    :raises FormatError: If the core is broken.
    :raises TargetError: If it is the core of something else than a kernel.
    """
    core = parse_core(file.read, file.size, file.name)
    try:
        get_arch(core.machine)
    except UnsupportedError as error:
        raise UnsupportedError(f"{file.name}: core of {error}") from None
    info = vmcoreinfo or noted_vmcoreinfo(core.notes, file.name)
    if info is None and _is_process(core):
        raise TargetError(
            f"{file.name}: is the core of a process, expected that of a Linux kernel"
        )
    ends = (item.offset + item.filesz for item in core.headers if item.filesz)
    check_whole(file, max(ends, default=0), damaged)
    extents = list(physical_extents(core.headers, file))
    if not extents:
        raise TargetError(f"{file.name}: the core holds no physical memory")
    packed = find_packed(core.notes, file.name)
    memory: Memory = FileMemory(file.detach(), flatten(extents), file.name)
    if packed is not None:
        memory = JoinedMemory(memory, packed)
    return CoreTarget(
        file.name,
        core.machine,
        memory,
        core.notes,
        info,
        _names(core.headers, info, memory),
    )


class CoreTarget(FileTarget):
    """
    An ELF core.

    :param aliases: Virtual names that no page table tells.
    """

    def __init__(
        self,
        name: str,
        machine: int,
        memory: Memory,
        notes: Iterable[Note],
        vmcoreinfo: VmcoreInfo | None,
        aliases: Sequence[Alias],
    ) -> None:
        super().__init__(name, machine, memory, notes, vmcoreinfo)
        self.aliases = aliases


def _names(
    headers: Iterable[ProgramHeader], info: VmcoreInfo | None, memory: Memory
) -> list[Alias]:
    """Return what the core says about virtual addresses, if no page table does."""
    if info is None:
        return []
    try:
        memory.read(image_address(info, info.symbol("swapper_pg_dir")), PAGE_SIZE)
    except (FormatError, NotCapturedError):
        return [
            Alias(header.vaddr, header.paddr, header.filesz)
            for header in headers
            if header.type == PT_LOAD
            and 0 < header.filesz <= _ADDRESS_END - header.vaddr
            and header.paddr != _ADDRESS_END - 1
        ][:_MAX_NAMES]
    return []


def _is_process(core: ElfCore) -> bool:
    return any(
        note.name == "CORE" and note.type in (_NT_AUXV, _NT_FILE) for note in core.notes
    )


def physical_extents(
    headers: Iterable[ProgramHeader], file: OpenFile
) -> Iterable[Extent]:
    """
    Yield where in an ELF core physical memory is.

    :raises FormatError: If a segment is not within 64 bits.
    """
    for header in headers:
        # /proc/kcore says -1 for what has no physical address (vmalloc).
        if header.type != PT_LOAD or header.paddr == _ADDRESS_END - 1:
            continue
        if header.paddr + header.filesz > _ADDRESS_END:
            raise FormatError(
                f"{file.name}: PT_LOAD at {header.offset:#x}",
                f"{header.filesz:#x} bytes from {header.paddr:#x} wrap around",
            )
        held = max(min(header.filesz, file.size - header.offset), 0)
        if held:
            yield Extent(header.paddr, held, header.offset)


def open_lime(
    file: OpenFile, vmcoreinfo: VmcoreInfo | None = None, damaged: bool = False
) -> FileTarget:
    """
    Open a LiME file.

    :param vmcoreinfo: To be used instead of what is in the memory.
    :param damaged: Whether it may be truncated.
    :raises FormatError: If the file is broken.
    :raises TargetError: If there is no VMCOREINFO.
    """
    ranges = parse_lime(file.read, file.size, file.name)
    if ranges:
        last = ranges[-1]
        end = last.offset + last.size + last.missing
        # What follows the last range is the header of another, or what is left of it.
        check_whole(file, end if end >= file.size else end + LIME_HEADER + 1, damaged)
    extents = [Extent(item.address, item.size, item.offset) for item in ranges]
    if not extents:
        raise TargetError(f"{file.name}: the file holds no memory")
    memory = FileMemory(file.detach(), flatten(extents), file.name)
    target = FileTarget(file.name, 0, memory, (), vmcoreinfo)
    try:
        target.machine = arch_of(target.vmcoreinfo()).machine
    except BaseException:
        target.close()
        raise
    return target
