# SPDX-License-Identifier: GPL-2.0-or-later
"""
ELF cores and LiME files.

ELF cores are those of kmemdump, of /proc/vmcore and its copies, and of QEMU's
dump-guest-memory.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from kmemdump.arch.architecture import arch_from_elf, arch_from_info
from kmemdump.arch.pagetable import translate
from kmemdump.coreimage.read import NO_ADDRESS, CoreImage
from kmemdump.errors import FormatError, NotCapturedError, TargetError, UnsupportedError
from kmemdump.files import OpenFile
from kmemdump.formats.elf import PT_LOAD, Note
from kmemdump.formats.lime import LIME_HEADER, parse_lime
from kmemdump.formats.xen_core import XEN_CORE_HEAD, is_xen_core
from kmemdump.memory.physical import PAGE_SIZE, FileMemory
from kmemdump.memory.ranges import ADDRESS_SPACE, Alias, Extent, flatten
from kmemdump.targets import Target
from kmemdump.targets.file import FileTarget, check_whole, noted_vmcoreinfo
from kmemdump.targets.xen_core import open_xen_core
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["CoreTarget", "core_of", "open_elf", "open_lime"]

logger = logging.getLogger(__name__)

_MAX_NAMES = 4096
_NT_AUXV = 6
_NT_FILE = 0x46494C45


def open_elf(
    file: OpenFile, vmcoreinfo: VmcoreInfo | None = None, damaged: bool = False
) -> FileTarget:
    """
    Open an ELF core of a kernel.

    :raises FormatError: If the core is broken.
    :raises TargetError: If it is not the core of a kernel.
    """
    if is_xen_core(file.read(0, XEN_CORE_HEAD)):
        return open_xen_core(file, vmcoreinfo, damaged)
    core = CoreImage(file)
    try:
        for problem in core.problems:
            logger.warning("%s", problem)
        _check_machine(core)
        if vmcoreinfo is None:
            _check_kernel(core)
        ends = (item.offset + item.filesz for item in core.headers if item.filesz)
        lacks = check_whole(file, max(ends, default=0), damaged)
        if not core.memory.ranges:
            raise TargetError(f"{core.name}: the core holds no physical memory")
        target = CoreTarget(core, vmcoreinfo)
        target.lacks = [*core.problems, *lacks]
        return target
    except BaseException:
        core.close()
        raise


def _check_machine(core: CoreImage) -> None:
    try:
        arch_from_elf(core.machine)
    except UnsupportedError as error:
        raise UnsupportedError(f"{core.name}: core of {error}") from None


def _check_kernel(core: CoreImage) -> None:
    if noted_vmcoreinfo(core.notes, core.name) is None and _is_process(core.notes):
        raise TargetError(
            f"{core.name}: is the core of a process, expected that of a Linux kernel"
        )


class CoreTarget(FileTarget):
    """
    An ELF core.

    :param core: Belongs to this object from here on, and is kept for its manifest.
    """

    def __init__(self, core: CoreImage, vmcoreinfo: VmcoreInfo | None) -> None:
        super().__init__(core.name, core.machine, core.memory, core.notes, vmcoreinfo)
        self.core = core
        info = self._given or self._noted
        self.aliases = _names(core, info)
        """Virtual addresses that no page table has."""

    def _find_vmcoreinfo(self) -> VmcoreInfo:
        # Its symbols are in a note: kallsyms, whose place would be looked for, are not.
        info = self._given or self._noted
        if info is not None and self.core.has_debug_info:
            return info
        return super()._find_vmcoreinfo()


def core_of(target: Target) -> CoreImage | None:
    """Return the ELF core that a target is; ``None`` if it is something else."""
    return target.core if isinstance(target, CoreTarget) else None


def _names(core: CoreImage, info: VmcoreInfo | None) -> list[Alias]:
    """
    Return the virtual addresses in the headers, if the core lacks the page table.

    What firmware saves may have the top table, among others, and not those below it.
    A core image of ours has all tables that were walked for it, or none. The one of the
    image may not be among them: kmemdump knows where it lies.
    """
    if info is None:
        return []
    names = [
        Alias(header.vaddr, header.paddr, header.filesz)
        for header in core.headers
        if header.type == PT_LOAD
        and 0 < header.filesz <= ADDRESS_SPACE - header.vaddr
        and header.paddr != NO_ADDRESS
    ][:_MAX_NAMES]
    pages: dict[int, bytes] = {}

    def read(address: int, size: int) -> bytes:
        start = address & -PAGE_SIZE
        if start not in pages:
            pages[start] = core.memory.read(start, PAGE_SIZE)
        return pages[start][address - start : address - start + size]

    try:
        table = arch_from_info(info).page_table(info)
        read(table.root, PAGE_SIZE)
        if _is_captured(core):
            return []
        wanted = [info.symbol("init_uts_ns"), *(item.virtual for item in names)]
        for virtual in filter(None, wanted):
            translate(table, read, virtual)
    except (FormatError, NotCapturedError):
        return names
    return []


def _is_captured(core: CoreImage) -> bool:
    try:
        return core.manifest is not None and not core.manifest.by_firmware
    except FormatError:
        return False


def _is_process(notes: Iterable[Note]) -> bool:
    return any(it.name == "CORE" and it.type in (_NT_AUXV, _NT_FILE) for it in notes)


def open_lime(
    file: OpenFile, vmcoreinfo: VmcoreInfo | None = None, damaged: bool = False
) -> FileTarget:
    """
    Open a LiME file.

    :raises FormatError: If the file is broken.
    :raises TargetError: If there is no VMCOREINFO.
    """
    ranges = parse_lime(file.read, file.size, file.name)
    lacks: list[str] = []
    if ranges:
        last = ranges[-1]
        end = last.offset + last.size + last.missing
        # After the last range comes another header, or a part of it.
        end = end if end >= file.size else end + LIME_HEADER + 1
        lacks = check_whole(file, end, damaged)
    extents = [Extent(item.address, item.size, item.offset) for item in ranges]
    if not extents:
        raise TargetError(f"{file.name}: the file holds no memory")
    memory = FileMemory(file.detach(), flatten(extents), file.name)
    target = FileTarget(file.name, 0, memory, (), vmcoreinfo).find_machine()
    target.lacks = lacks
    return target
