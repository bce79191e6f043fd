# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps of Xen's domains (``xl dump-core``, ``virsh dump`` of a Xen domain)."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from kmemdump.arch.architecture import Arch, arch_from_elf, pack_prstatus
from kmemdump.errors import FormatError, TargetError, UnsupportedError
from kmemdump.files import OpenFile
from kmemdump.formats.elf import EM_X86_64, NT_PRSTATUS, Note
from kmemdump.formats.xen_core import CONTEXT_NOTE, parse_context, parse_xen_core
from kmemdump.memory.physical import FileMemory
from kmemdump.memory.ranges import flatten
from kmemdump.targets.file import FileTarget, check_whole
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["open_xen_core"]

logger = logging.getLogger(__name__)


def open_xen_core(
    file: OpenFile, vmcoreinfo: VmcoreInfo | None = None, damaged: bool = False
) -> FileTarget:
    """
    Open a dump of a domain that has its own physical addresses (HVM, PVH).

    :raises FormatError: If the dump is broken.
    :raises UnsupportedError: If it is of a paravirtualised domain, or another machine.
    """
    core = parse_xen_core(file.read, file.size, file.name)
    for problem in core.problems:
        logger.warning("%s", problem)
    if core.machine != EM_X86_64:
        # Of Arm domains, 128 MiB are in it (xg_core_arm.c).
        raise UnsupportedError(
            f"{file.name}: a Xen domain of machine {core.machine}, expected one of "
            f"x86-64 ({EM_X86_64})"
        )
    if core.paravirtual:
        raise UnsupportedError(
            f"{file.name}: a paravirtualised Xen domain, whose page tables have the "
            f"host's addresses\ncrash VMLINUX {file.name} reads it"
        )
    lacks = check_whole(file, core.end, damaged)
    if not core.extents:
        raise TargetError(f"{file.name}: the dump holds no memory")
    arch = arch_from_elf(core.machine)
    notes = _notes(core.contexts, arch, file.name)
    memory = FileMemory(file.detach(), flatten(core.extents), file.name)
    target = FileTarget(file.name, core.machine, memory, notes, vmcoreinfo)
    target.lacks = lacks
    return target


def _notes(contexts: Sequence[bytes], arch: Arch, source: str) -> list[Note]:
    """Return the CPUs' registers as a core has them, and their page tables."""
    found = []
    for number, context in enumerate(contexts, 1):
        try:
            cpu = parse_context(context, f"{source}: CPU {number - 1}")
        except FormatError as error:
            logger.warning("%s", error)
            return []
        if cpu.online:
            status = pack_prstatus(arch, number, cpu.registers)
            found.append(Note("CORE", NT_PRSTATUS, status))
            found.append(Note(CONTEXT_NOTE, 0, context))
    return found
