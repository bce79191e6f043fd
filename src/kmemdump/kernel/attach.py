# SPDX-License-Identifier: GPL-2.0-or-later
"""Look at a kernel from outside: physical memory in, a :class:`drgn.Program` out."""

from __future__ import annotations

import contextlib
import logging
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import drgn
from drgn import BadDataError, Module, Object, Program

from kmemdump.arch.architecture import arch_from_elf, arch_from_program
from kmemdump.bounds.steps import raise_memory
from kmemdump.errors import BudgetExceededError, FormatError, UnsupportedError
from kmemdump.kernel.build_cache import BuildCache
from kmemdump.kernel.changing_registers import CRASH_TIME, add_changing_registers
from kmemdump.kernel.cpu_count import bound_cpu_count
from kmemdump.kernel.debug_info import (
    DebugInfo,
    debug_info_of_core,
    read_debug_info,
    read_unwind_tables,
)
from kmemdump.kernel.direct_map import add_linear_maps
from kmemdump.kernel.drgn_finders import register_finders
from kmemdump.kernel.loaded_modules import without_early_warnings
from kmemdump.kernel.mapped_memory import add_mapped_memory
from kmemdump.kernel.program import RECORDER, REGISTERS, core_program
from kmemdump.memory.ranges import ADDRESS_SPACE
from kmemdump.memory.reading import Budget, PartReads, Reading
from kmemdump.memory.recorder import Recorder
from kmemdump.targets import NamingTarget, Target
from kmemdump.targets.vmcore import core_of
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = [
    "Kernel",
    "OwnDebugInfo",
    "attach",
    "debug_file_build_id",
    "open_debug_file",
    "read_own_debug_info",
]

_logger = logging.getLogger(__name__)
_ATTACH_BUDGET = Budget(reads=1_000_000, bytes=512 << 20, seconds=60)


class Asked(Protocol):
    """Notes what is asked for in a program."""

    def register(self, prog: Program) -> None:
        """Let drgn ask this first."""


@dataclass(frozen=True, slots=True)
class OwnDebugInfo:
    """The debug info in a kernel's own memory, as recorded; it never changes."""

    found: DebugInfo | None
    blocks: frozenset[int]
    """Blocks that hold it, unwind tables included."""
    problem: str | None
    """Why none was found, if a search was made."""
    tables: frozenset[int] = frozenset()
    """Blocks that hold unwind tables, which drgn reads in memory."""
    from_vmlinux: bool = False
    """Whether it was made of a vmlinux, because memory does not have all of it."""

    @property
    def complete(self) -> bool:
        """Whether there are all symbols and types."""
        return self.found is not None and not self.found.lacks


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel that is looked at from outside."""

    prog: Program
    vmcoreinfo: VmcoreInfo
    registers: Sequence[bytes]
    """
    NT_PRSTATUS of each CPU, in CPU order. Without them, tasks that run on a CPU have
    no stack trace.
    """
    recorder: Recorder
    own_debug_info: OwnDebugInfo
    base_blocks: frozenset[int]
    """Other blocks that attaching read."""
    has_vmlinux: bool = False
    """Whether symbols and types come from a debug file instead."""
    base: PartReads | None = None
    """
    What attaching read, if it can be looked at again: until any of that changes, as
    when modules are loaded.
    """

    @property
    def problem(self) -> str | None:
        """
        Why there are no symbols and types. Without them, only questions that need none
        can be answered.
        """
        return None if self.has_vmlinux else self.own_debug_info.problem

    @property
    def lacks(self) -> str:
        """Which symbols are missing, in one line; empty if none are."""
        found = self.own_debug_info.found
        return "" if self.has_vmlinux or found is None else found.lacks


def attach(
    target: Target,
    *,
    vmlinux: Path | None = None,
    known: Kernel | OwnDebugInfo | None = None,
    self_contained: bool = False,
    asked: Asked | None = None,
    builds: BuildCache | None = None,
    marking: bool = True,
    lasting: bool = False,
    recorder: Recorder | None = None,
) -> Kernel:
    """
    Attach drgn to the kernel of *target*, recording what is read.

    :param vmlinux: The kernel's own debug file, instead of kallsyms and BTF.
    :param known: The same kernel, attached earlier, or its own debug info, which is
        not read again.
    :param self_contained: Whether to read kallsyms and BTF even with a vmlinux.
    :param asked: Notes what is asked for, from now on.
    :param builds: What kernels of one build share.
    :param marking: Whether memory is marked by what is read. If not, unwind tables are
        read when they are needed, so that who asks for no stack does not wait for them.
    :param lasting: Whether it is to be looked at again, when registers are others.
    :param recorder: Reads the target's memory; by default, a new one.
    :raises FormatError: If the vmlinux is another kernel's.
    :raises KmemdumpError: If there is no kernel that drgn can look at.
    """
    _logger.info("attaching to %s", target.name)
    recorder = recorder or Recorder(target.memory, divided=marking)
    registers = target.registers()
    # A machine that looks at itself has none, and drgn then says so.
    changing = lasting and bool(registers)
    # Of a crash, drgn knows where the kernel wrote the registers, which do not change.
    changing &= CRASH_TIME.keys().isdisjoint(target.vmcoreinfo().values)
    prog = _program(target, recorder, registers, changing=changing)
    own = OwnDebugInfo(None, frozenset(), None)
    if known is not None:
        own = known.own_debug_info if isinstance(known, Kernel) else known
    elif vmlinux is None or self_contained:
        own = read_own_debug_info(target, recorder, builds, marking=marking)
    used = own.found if vmlinux is None else None
    info = target.vmcoreinfo()
    with (
        _refusals_named(info),
        recorder.reading(_ATTACH_BUDGET, "attaching") as reading,
    ):
        if vmlinux is not None:
            _load_vmlinux(prog, vmlinux, info)
        register_finders(prog, lambda: used)
        bound_cpu_count(prog)
        if asked is not None:
            asked.register(prog)
        if vmlinux is not None or used is not None:
            # A second program: drgn caches the page tables that it walks, and a core
            # image may lack those that were read with the debug info.
            walker = _program(target, recorder, ())
            # What firmware saved may have names for memory, but no page table.
            if not (isinstance(target, NamingTarget) and target.aliases):
                add_mapped_memory(prog, target.machine, info, recorder)
            add_linear_maps(prog, walker, target.machine, info, recorder)
            if changing and not add_changing_registers(prog, recorder):
                lasting = False
            describe_modules(prog, used, unwind=marking)
    return Kernel(
        prog,
        target.vmcoreinfo(),
        registers,
        recorder,
        own,
        frozenset(reading.blocks) - own.tables,
        vmlinux is not None,
        reading.frame.without(own.tables) if lasting else None,
    )


def read_own_debug_info(
    target: Target,
    recorder: Recorder,
    builds: BuildCache | None = None,
    *,
    marking: bool = True,
) -> OwnDebugInfo:
    """
    Read the debug info of the kernel of *target*: in its note, or else in its memory.

    :param recorder: Reads the kernel's memory, and records the reads.
    :param builds: What kernels of one build share.
    :param marking: As for :func:`attach`.
    """
    # A separate program, without a vmlinux.
    prog = _program(target, recorder, ())
    found = problem = None
    core = core_of(target)
    reading = Reading(_ATTACH_BUDGET)
    try:
        with (
            _refusals_named(target.vmcoreinfo()),
            recorder.reading(_ATTACH_BUDGET, "symbols and types") as reading,
        ):
            if core is not None and core.has_debug_info:
                found = debug_info_of_core(core, builds)
            else:
                info, machine = target.vmcoreinfo(), target.machine
                found = read_debug_info(prog, info, machine, target.memory, builds)
    except (UnsupportedError, FormatError, BudgetExceededError) as error:
        problem = str(error)
    blocks = frozenset(reading.blocks)
    if found is None:
        return OwnDebugInfo(None, blocks, problem)
    tables = frozenset[int]()
    if marking:
        tables = _unwind_tables(target, prog, recorder, found)
    return OwnDebugInfo(found, blocks | tables, None, tables)


@contextlib.contextmanager
def _refusals_named(info: VmcoreInfo) -> Iterator[None]:
    """Name what drgn refuses only when it first walks a page table."""
    try:
        yield
    except BadDataError as error:
        raise FormatError(info.source, f"drgn refuses it: {error}") from error


def with_unwind_tables(target: Target, found: DebugInfo) -> OwnDebugInfo:
    """Return debug info of a vmlinux, with the blocks of memory that go with it."""
    recorder = Recorder(target.memory)
    prog = _program(target, recorder, ())
    tables = _unwind_tables(target, prog, recorder, found)
    return OwnDebugInfo(found, tables, None, tables, from_vmlinux=True)


def _unwind_tables(
    target: Target, prog: Program, recorder: Recorder, found: DebugInfo
) -> frozenset[int]:
    with recorder.reading(_ATTACH_BUDGET, "unwind tables") as reading:
        read_unwind_tables(prog, found, target.machine)
    return frozenset(reading.blocks)


def _program(
    target: Target,
    recorder: Recorder,
    registers: Sequence[bytes],
    *,
    changing: bool = False,
) -> Program:
    info = target.vmcoreinfo()
    if changing:
        info = info.with_lines(CRASH_TIME)
    noted = () if changing else registers
    prog = core_program(target.machine, info, target.name, noted)
    prog.config[REGISTERS] = tuple(registers)
    prog.config[RECORDER] = recorder
    # One segment is enough: the memory refuses addresses that it does not hold, and the
    # recorder knows of them. drgn has 64 bits for the size.
    mask = arch_from_elf(target.machine).encryption_mask(target.vmcoreinfo())
    read = _decrypted(recorder, mask) if mask else recorder.read
    prog.add_memory_segment(0, ADDRESS_SPACE - 1, read, True)
    if isinstance(target, NamingTarget):
        for alias in target.aliases:
            prog.add_memory_segment(
                alias.virtual, alias.size, _reader(recorder, alias.physical), False
            )
    return prog


def _decrypted(recorder: Recorder, mask: int) -> Callable[[int, int, int, bool], bytes]:
    # drgn takes all bits of a page table's entry for the address.
    return lambda address, count, offset, physical: recorder.read(
        address & ~mask, count, offset, physical
    )


def _reader(
    recorder: Recorder, physical: int
) -> Callable[[int, int, int, bool], bytes]:
    return lambda _address, count, offset, _physical: recorder.read(
        physical + offset, count, offset, True
    )


def _load_vmlinux(prog: Program, vmlinux: Path, vmcoreinfo: VmcoreInfo) -> None:
    raise_memory()
    found = debug_file_build_id(vmlinux)
    expected = vmcoreinfo.build_id
    if expected is not None and found != expected:
        raise FormatError(
            str(vmlinux),
            f"build id {found or 'missing'}, but the kernel is "
            f"{vmcoreinfo.osrelease} with build id {expected}",
        )
    # load_debug_info() would read the list of modules before the linear maps are
    # added.
    main = prog.main_module("kernel", create=True)
    if expected is not None:
        main.build_id = bytes.fromhex(expected)
    try:
        main.try_file(vmlinux)
    except Exception as error:
        raise FormatError(str(vmlinux), f"drgn refuses it: {error}") from error
    if main.debug_file_path is None:
        raise FormatError(str(vmlinux), "it contains no debug info that drgn can read")


def debug_file_build_id(path: Path) -> str | None:
    """
    Return the build id of an ELF file, in hexadecimal.

    :raises FormatError: If it cannot be read as an ELF file.
    """
    build_id = open_debug_file(path).build_id
    return build_id.hex() if build_id else None


def open_debug_file(path: Path) -> Module:
    """
    Open an ELF file by itself.

    :return: It has a ``debug_file_path`` if the file has debug info.
    :raises FormatError: If it cannot be read as an ELF file.
    """
    prog = Program(drgn.host_platform)
    module = prog.extra_module(str(path), create=True)
    module.address_range = (0, 1)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # drgn would wait on a FIFO.
            raise FormatError(str(path), "not a regular file, expected a vmlinux")
        module.try_file(path, force=True)
    except FormatError:
        raise
    except OSError as error:
        raise FormatError(str(path), error.strerror or str(error)) from error
    except Exception as error:
        raise FormatError(str(path), str(error)) from error
    if module.debug_file_path is None and module.loaded_file_path is None:
        raise FormatError(str(path), "not an ELF file with debug info")
    return module


def describe_modules(
    prog: Program, info: DebugInfo | None, *, unwind: bool = True
) -> None:
    """
    Give drgn the addresses of the kernel and its modules, so that it can unwind them.

    Without a vmlinux, drgn takes the ORC tables from the kernel's memory, and needs
    these addresses to find them.

    :param unwind: Whether to load the image's tables now, so that they are not counted
        as needed by a question about stacks.
    """
    # A damaged list of modules only costs stack traces through modules. drgn may raise
    # any exception for such a list.
    if info is None or info.symbol("modules") is not None:
        with contextlib.suppress(Exception), without_early_warnings(prog):
            prog.create_loaded_modules()
    if info is None:
        return
    with contextlib.suppress(Exception):
        main = prog.main_module("kernel", create=True)
        if main.address_ranges is None:
            main.address_range = (info.start, info.end)
        if not unwind:
            return
        # Unwinding from any address makes drgn load them.
        start = arch_from_program(prog).registers_at(info.start)
        prog.stack_trace(Object(prog, "struct pt_regs", value=start))
