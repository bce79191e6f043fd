# SPDX-License-Identifier: GPL-2.0-or-later
"""
drgn plugin: ``drgn -c CORE`` works without debug info where kmemdump is installed.

drgn calls :func:`drgn_prog_set` for every program; nothing is read until drgn asks
for something that it does not find by itself.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from drgn import FaultError, Module, ModuleFileStatus, Program, ProgramFlags

from kmemdump.arch.architecture import arch_from_elf
from kmemdump.coreimage import CoreImage, read_core
from kmemdump.debuggers.safe_path import look_there_last
from kmemdump.errors import KmemdumpError
from kmemdump.kernel.attach import describe_modules
from kmemdump.kernel.debug_info import (
    DebugInfo,
    debug_info_of_core,
    read_debug_info,
)
from kmemdump.kernel.drgn_finders import register_finders
from kmemdump.kernel.program import NAME
from kmemdump.sealing.unseal import path_of_unsealed
from kmemdump.targets.file import noted_vmcoreinfo
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["drgn_prog_set"]

_logger = logging.getLogger("drgn")


def drgn_prog_set(prog: Program) -> None:
    """Let drgn use the packed memory and the debug info in a kernel core."""
    if sys.flags.safe_path:  # As 'kmemdump open' starts drgn.
        look_there_last()
    if not prog.flags & ProgramFlags.IS_LINUX_KERNEL or NAME in prog.config:
        return
    path = prog.core_dump_path
    if path is None or path.startswith("/proc/"):
        return
    path = path_of_unsealed(path) or path
    try:
        core = read_core(path)
    except KmemdumpError as error:
        if _is_elf(path):  # Else kdump-compressed, and opened by drgn itself.
            _logger.warning("kmemdump: %s", error)
        return
    try:
        _add_encrypted_memory(prog, path, core)
    except KmemdumpError as error:
        _logger.warning("kmemdump: %s", error)
    _add_packed_memory(prog, core)
    register_finders(prog, _DebugInfoLoader(prog, core).get)
    if core.has_debug_info:
        # The last that is asked: what the others find is better.
        prog.register_debug_info_finder("kmemdump", _need_no_files, enable_index=-1)


def _need_no_files(modules: Sequence[Module]) -> None:
    """Keep drgn from saying that debugging symbols are missing, which are there."""
    for module in modules:
        if module.wants_loaded_file():
            module.loaded_file_status = ModuleFileStatus.DONT_NEED
        if module.wants_debug_file():
            module.debug_file_status = ModuleFileStatus.DONT_NEED


def _is_elf(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False


def _add_encrypted_memory(prog: Program, path: str, core: CoreImage) -> None:
    """
    Let drgn find memory at addresses with AMD's C-bit, too.

    It takes all bits of a page table's entry for the address.
    """
    info = noted_vmcoreinfo(core.notes, path)
    if info is None:
        return
    mask = arch_from_elf(core.machine).encryption_mask(info)
    if not mask:
        return
    memory = read_core(path).memory  # drgn reads for as long as the program exists.

    def read(address: int, count: int, offset: int, physical: bool) -> bytes:
        try:
            return memory.read(address & ~mask, count)
        except KmemdumpError as error:
            raise FaultError(str(error), address) from None

    end = max((item.end for item in memory.ranges), default=0)
    if end:
        prog.add_memory_segment(mask, end, read, True)


def _add_packed_memory(prog: Program, core: CoreImage) -> None:
    packed = core.packed
    if packed is None:
        core.close()
        return

    def read(address: int, count: int, offset: int, physical: bool) -> bytes:
        try:
            return packed.read(address, count)
        except KmemdumpError as error:
            raise FaultError(str(error), address) from None

    for item in packed.ranges:
        prog.add_memory_segment(item.start, item.size, read, True)
    core.close()  # The note is in memory.


class _DebugInfoLoader:
    """Reads the kernel's symbols and types once, without recursion."""

    def __init__(self, prog: Program, core: CoreImage) -> None:
        self._prog = prog
        self._machine = core.machine
        self._path = core.path
        self._core = core  # Closed: the notes are in memory.
        self._asked = False
        self._found: DebugInfo | None = None

    def get(self) -> DebugInfo | None:
        if not self._asked:
            self._asked = True
            self._found = self._load()
            if self._found is not None:
                describe_modules(self._prog, self._found, unwind=False)
        return self._found

    def _load(self) -> DebugInfo | None:
        prog = self._prog
        main = next((m for m in prog.modules() if m.name == "kernel"), None)
        if main is not None and main.debug_file_path is not None:
            return None  # drgn has debug info.
        try:
            if self._core.has_debug_info:
                return debug_info_of_core(self._core)
            note = prog["VMCOREINFO"].string_()
            info = VmcoreInfo.parse(note, str(self._path))
            return read_debug_info(prog, info, self._machine)
        except Exception as error:  # drgn must go on with any core.
            reason = str(error).replace("--vmlinux", "-s")  # drgn calls it -s.
            _logger.warning("kmemdump: no symbols and types: %s", reason)
            return None
