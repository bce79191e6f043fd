# SPDX-License-Identifier: GPL-2.0-or-later
"""Look at a kernel from outside: physical memory in, a :class:`drgn.Program` out."""

from __future__ import annotations

import contextlib
import logging
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import drgn
from drgn import Object, Program

from kmemdump.arch.architecture import arch_in
from kmemdump.errors import BudgetExceededError, FormatError, UnsupportedError
from kmemdump.kernel.debug_info import Knowledge, equip, learn
from kmemdump.kernel.direct_map import add_linear_maps
from kmemdump.kernel.program import core_program
from kmemdump.memory.recorder import Budget, Recorder
from kmemdump.targets import NamingTarget, Target
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["Kernel", "Learned", "attach", "learn_kernel"]

_logger = logging.getLogger(__name__)
_ATTACH_BUDGET = Budget(reads=1_000_000, bytes=512 << 20, seconds=60)


@dataclass(frozen=True, slots=True)
class Learned:
    """What was read of a kernel that never changes."""

    knowledge: Knowledge | None
    blocks: frozenset[int]
    """Blocks that hold it."""
    unknown: str | None
    """Why there is no knowledge."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel that is looked at from outside."""

    prog: Program
    vmcoreinfo: VmcoreInfo
    registers: Sequence[bytes]
    """
    NT_PRSTATUS of each CPU, in CPU order. Without them, what runs on a CPU has no
    stack trace.
    """
    recorder: Recorder
    knowledge: Knowledge | None
    """Addresses and types from the kernel's memory, if they were read."""
    knowledge_blocks: frozenset[int]
    """Blocks that hold them."""
    base_blocks: frozenset[int]
    """Blocks that attaching itself read, besides those."""
    unknown: str | None = None
    """Why there is no *knowledge*, if that was looked for."""
    debug_info: bool = False
    """Whether symbols and types come from a debug file."""

    @property
    def learned(self) -> Learned:
        """What there is to keep of it for the next time."""
        return Learned(self.knowledge, self.knowledge_blocks, self.unknown)

    @property
    def problem(self) -> str | None:
        """
        Why there are no symbols and types, so that only questions that need none can be
        answered.
        """
        return None if self.debug_info else self.unknown


def attach(
    target: Target,
    *,
    vmlinux: Path | None = None,
    known: Kernel | Learned | None = None,
    self_contained: bool = False,
) -> Kernel:
    """
    Attach drgn to the kernel of *target*, recording what is read.

    :param vmlinux: The kernel's own debug file, instead of kallsyms and BTF.
    :param known: The same kernel, attached earlier, or what was learned of it: what
        never changes is not read again.
    :param self_contained: Whether to read kallsyms and BTF even with a vmlinux.
    :raises FormatError: If the vmlinux is another kernel's.
    :raises KmemdumpError: If there is no kernel that drgn can look at.
    """
    _logger.info("attaching to %s", target.name)
    recorder = Recorder(target.memory)
    registers = target.registers()
    prog = _program(target, recorder, registers)
    learned = Learned(None, frozenset(), None)
    if known is not None:
        learned = known.learned if isinstance(known, Kernel) else known
    elif vmlinux is None or self_contained:
        learned = learn_kernel(target, recorder)
    used = learned.knowledge if vmlinux is None else None
    with recorder.reading(_ATTACH_BUDGET) as reading:
        if vmlinux is not None:
            _load_vmlinux(prog, vmlinux, target.vmcoreinfo())
        equip(prog, lambda: used)
        if vmlinux is not None or used is not None:
            # Another one: drgn keeps tables that it has walked, and what is read while
            # learning is not in every core image.
            walker = _program(target, recorder, ())
            info = target.vmcoreinfo()
            add_linear_maps(prog, walker, target.machine, info, recorder)
            describe_modules(prog, used)
    return Kernel(
        prog,
        target.vmcoreinfo(),
        registers,
        recorder,
        learned.knowledge,
        learned.blocks,
        frozenset(reading.blocks) - learned.blocks,
        learned.unknown,
        vmlinux is not None,
    )


def learn_kernel(target: Target, recorder: Recorder) -> Learned:
    """
    Read what never changes of the kernel of *target*.

    :param recorder: Reads its memory, and keeps what was read.
    """
    # A program of its own, which debug info has no part in.
    prog = _program(target, recorder, ())
    knowledge = unknown = None
    with recorder.reading(_ATTACH_BUDGET) as reading:
        try:
            knowledge = learn(prog, target.vmcoreinfo(), target.machine)
        except (UnsupportedError, FormatError, BudgetExceededError) as error:
            unknown = str(error)
    return Learned(knowledge, frozenset(reading.blocks), unknown)


def _program(target: Target, recorder: Recorder, registers: Sequence[bytes]) -> Program:
    prog = core_program(target.machine, target.vmcoreinfo(), target.name, registers)
    if target.memory.ranges:
        # One segment for all: what is not there is refused by the memory.
        end = max(item.end for item in target.memory.ranges)
        end = min(end, (1 << 64) - 1)  # drgn takes its size as 64 bits.
        prog.add_memory_segment(0, end, recorder.read, True)
    if isinstance(target, NamingTarget):
        for alias in target.aliases:
            prog.add_memory_segment(
                alias.virtual, alias.size, _reader(recorder, alias.physical), False
            )
    return prog


def _reader(
    recorder: Recorder, physical: int
) -> Callable[[int, int, int, bool], bytes]:
    return lambda _address, count, offset, _physical: recorder.read(
        physical + offset, count, offset, True
    )


def _load_vmlinux(prog: Program, vmlinux: Path, vmcoreinfo: VmcoreInfo) -> None:
    found = debug_file_build_id(vmlinux)
    expected = vmcoreinfo.build_id
    if expected is not None and found != expected:
        raise FormatError(
            str(vmlinux),
            f"build id {found or 'missing'}, but the kernel is "
            f"{vmcoreinfo.osrelease} with build id {expected}",
        )
    # Not load_debug_info(), which reads the list of modules before it can be told
    # which memory is mapped linearly.
    main = prog.main_module("kernel", create=True)
    if expected is not None:
        main.build_id = bytes.fromhex(expected)
    try:
        main.try_file(vmlinux)
    except Exception as error:
        raise FormatError(str(vmlinux), f"drgn refuses it: {error}") from error
    if main.debug_file_path is None:
        raise FormatError(str(vmlinux), "no debug info that drgn can read in it")


def debug_file_build_id(path: Path) -> str | None:
    """
    Return the build id of an ELF file, in hexadecimal.

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
    return module.build_id.hex() if module.build_id else None


def describe_modules(prog: Program, knowledge: Knowledge | None) -> None:
    """
    Tell drgn where the kernel and its modules are, so that it unwinds their code.

    Without debug info, drgn takes the ORC tables from the kernel's memory, but only
    for modules that it knows the addresses of.
    """
    # A damaged module list costs the stack traces through modules, no more; and
    # drgn raises whatever it likes for one.
    with contextlib.suppress(Exception):
        prog.create_loaded_modules()
    if knowledge is None:
        return
    # Unwinding from anywhere makes drgn load the image's tables for that, so that they
    # are not taken for a part of what a question about stacks needs.
    with contextlib.suppress(Exception):
        main = prog.main_module("kernel", create=True)
        if main.address_ranges is None:
            main.address_range = (knowledge.start, knowledge.end)
        start = arch_in(prog).registers_at(knowledge.start)
        prog.stack_trace(Object(prog, "struct pt_regs", value=start))
