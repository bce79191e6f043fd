# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that an unpatched ``crash`` reads for stack traces and disassembly."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import islice

from drgn import FaultError, Program

from kmemdump.arch.architecture import arch_from_program
from kmemdump.areas.readers import MAX_ENTRIES, cpus, main_tasks, read_pages, symbols
from kmemdump.memory.physical import PAGE_SIZE
from kmemdump.questions.objects import each

__all__ = ["stacks", "text"]

_CHECKED = (
    "__ia32_sys_fork",
    "__x64_sys_fork",
    "__x64_sys_open",
    "__x64_sys_read",
    "_do_fork",
    "do_fork",
    "do_futex",
    "sys_fork",
    "sys_open",
    "sys_read",
    "sys_write",
    "vfs_read",
)
"""Functions whose first bytes x86_64_framepointer_init() reads."""

_DISASSEMBLED = (
    "common_interrupt",  # x86_64_irq_eframe_link_init()
    "schedule",  # x86_64_thread_return_init(), dis schedule
    "__schedule",  # x86_64_thread_return_init()
)

_HALTED_IN = (
    "acpi_idle_enter",
    "acpi_safe_halt",
    "default_idle",
    "delay_tsc",
    "intel_idle",
    "mwait_idle",
    "native_halt",
    "native_safe_halt",
    "panic",
    "pv_native_safe_halt",
    "stop_this_cpu",
)
"""Functions that CPUs run when a dump is made; CPU registers may be unknown."""

_PANICS_IN = (
    "__handle_sysrq",
    "asm_exc_page_fault",
    "die",
    "do_syscall_64",
    "entry_SYSCALL_64",
    "exc_page_fault",
    "ksys_write",
    "make_task_dead",
    "nmi_panic",
    "oops_end",
    "page_fault_oops",
    "panic",
    "proc_reg_write",
    "sysrq_handle_crash",
    "vfs_write",
    "watchdog_timer_fn",
    "write_sysrq_trigger",
)
"""
Functions on the stack of a CPU that panics, marked in advance: with a backend in
firmware, nothing looks at the kernel again after its death.
"""

_EXCEPTION_STACK = 2 * PAGE_SIZE  # EXCEPTION_STKSZ, asm/page_64_types.h.
_MAX_STACK = 256 << 10
_MAX_FRAMES = 64
_MAX_FUNCTION = 64 << 10
_ORC_BLOCK = 256  # LOOKUP_BLOCK_SIZE, asm/orc_lookup.h.


def text(prog: Program) -> None:
    """Read the instructions that crash checks when it starts."""
    for name in _CHECKED:
        for symbol in symbols(prog, name):
            read_pages(prog, symbol.address, 16)
    for name in _DISASSEMBLED:
        for symbol in symbols(prog, name):
            _read_instructions(prog, symbol.address, symbol.size)
    for name in _HALTED_IN + _PANICS_IN:
        for symbol in symbols(prog, name):
            read_pages(prog, symbol.address, min(symbol.size, PAGE_SIZE))


def stacks(prog: Program) -> None:
    """Read stacks, and the unwind entries and text of the functions on them."""
    # bt reads stacks whole. For each frame on them, x86_64_get_framesize() needs the
    # unwind entry of its return address, and the function's text if the entry does not
    # have the size, or has numbers that this crash does not know (they changed in v6.4
    # and v7.1): most of that text shares a page with what is read anyway.
    # x86_64_function_called_by() needs the call before that address.
    arch = arch_from_program(prog)
    ranges = [
        (arch.untagged(task.stack.value_()), _thread_size(prog))
        for task in main_tasks(prog)
    ]
    for cpu in cpus(prog):
        ranges.extend(_other_stacks(prog, cpu))
    frames = _frames(prog)
    start, end = (prog.symbol(name).address for name in ("_stext", "_etext"))
    code = {pc for pc, _ in frames or () if start <= pc < end}
    for address, size in ranges:
        used = _used(range(address, address + size), frames)
        for page in range(address, address + size, PAGE_SIZE):
            # An unneeded stack, VC for example, may have no memory.
            data = read_pages(prog, page, PAGE_SIZE)
            words = struct.iter_unpack("<Q", data[max(used.start - page, 0) :])
            code.update(word for (word,) in words if start <= word < end)
    names = _HALTED_IN + _PANICS_IN
    for symbol in (item for name in names for item in symbols(prog, name)):
        code.add(symbol.address + max(symbol.size - 1, 0))
    for pc in each("places", islice(sorted(code), MAX_ENTRIES)):
        read_pages(prog, pc - 5, 8)
        _read_unwind_entry(prog, pc)
        _read_function(prog, pc)


def _thread_size(prog: Program) -> int:
    size: int = prog["THREAD_SIZE"].value_()
    return min(size, _MAX_STACK)


def _other_stacks(prog: Program, cpu: int) -> Iterator[tuple[int, int]]:
    """Yield addresses and sizes of a CPU's interrupt and exception stacks."""
    arch = arch_from_program(prog)
    stack = arch.interrupt_stack(prog, cpu)
    if stack is not None:
        yield stack.start, min(stack.size, _MAX_STACK)
    for stack in arch.exception_stacks(prog, cpu):
        size = min(stack.size, _EXCEPTION_STACK)
        yield stack.end - size, size


def _frames(prog: Program) -> list[tuple[int, int]] | None:
    """
    Return program counters and stack pointers of the frames on the main tasks' stacks.

    :return: ``None`` if they are not known.
    """
    found: list[tuple[int, int]] = []
    untagged = arch_from_program(prog).untagged
    for task in main_tasks(prog):
        try:
            trace = islice(prog.stack_trace(task), _MAX_FRAMES)
            found.extend((frame.pc, untagged(frame.sp)) for frame in trace)
        except (FaultError, LookupError, ValueError):
            return None  # The task runs, and its registers are not known.
    return found


def _used(stack: range, frames: Sequence[tuple[int, int]] | None) -> range:
    """Return the part of a stack that is in use; below it are old frames."""
    if frames is None:
        return stack
    pointers = [sp for _, sp in frames if sp in stack]
    return range(min(pointers, default=stack.stop) & -8, stack.stop)


def _read_unwind_entry(prog: Program, pc: int) -> None:
    """Read as much as orc_find() of crash does; drgn's unwinder reads less."""
    tables = [
        symbols(prog, name)
        for name in (
            "orc_lookup",
            "__start_orc_unwind_ip",
            "__stop_orc_unwind_ip",
            "__start_orc_unwind",
            "__stop_orc_unwind",
        )
    ]
    if not all(tables):
        return  # CONFIG_UNWINDER_FRAME_POINTER
    lookup, ips, ips_end, entries, entries_end = (item[0].address for item in tables)
    count = (ips_end - ips) // 4
    if count <= 0:
        return
    size = (entries_end - entries) // count
    block = (pc - prog.symbol("_stext").address) // _ORC_BLOCK
    found = read_pages(prog, lookup + 4 * block, 8)
    if len(found) < 8:
        return
    first, last = struct.unpack("<2I", found)
    last = min(last + 1, count, first + _ORC_BLOCK)
    if first >= last:
        return
    start = ips + 4 * first
    entry = first
    offsets = read_pages(prog, start, 4 * (last - first))
    for i, (offset,) in enumerate(
        struct.iter_unpack("<i", offsets[: len(offsets) & -4])
    ):
        if start + 4 * i + offset > pc:
            break
        entry = first + i
    read_pages(prog, entries + size * entry, size)


def _read_function(prog: Program, pc: int) -> None:
    try:
        start = prog.symbol(pc).address
    except LookupError:
        return
    _read_instructions(prog, start, pc - start)


def _read_instructions(prog: Program, start: int, size: int) -> None:
    # crash asks its debugger for one instruction per byte, and uses those that lie
    # within the bytes; an instruction has 3 to 5 bytes on average.
    read_pages(prog, start, min(5 * size + 64, _MAX_FUNCTION))
