# SPDX-License-Identifier: GPL-2.0-or-later
"""
Sections of a report: the CPU when the kernel failed, and what the kernel logged of it.

Registers and code in memory decide; what the kernel printed is taken where there are
none, as in a mere log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from drgn import Program, StackFrame
from drgn.helpers.linux.percpu import per_cpu

from kmemdump.arch.disassembly import disassemble_around
from kmemdump.diagnosis.records import Cause, Cpu
from kmemdump.errors import UnsupportedError
from kmemdump.formats.oops_text import CodeLine, OopsText, find_hardware, parse_oops
from kmemdump.kernel.optional import ABSENT, optional
from kmemdump.kernel.printk import LogRecord
from kmemdump.kernel.tasks import stack_of_registers
from kmemdump.report.records import Fault, Hardware, Instruction, Register, TraceEntry

__all__ = [
    "choose_fault",
    "fault_in_log",
    "fault_in_memory",
    "find_machine_name",
    "lines_of_failure",
    "trace_in_log",
]

_KERNEL = 0
_MAX_LINES = 150
_CUT_HERE = "[ cut here ]"
_ENDS = ("---[ end ", "Kernel Offset:", "Rebooting in ")
_BEFORE = 3
"""How many lines before the first one that is evidence may belong to the failure."""
_CODE_BEFORE, _CODE_AFTER = 48, 32
"""Bytes of code around the instruction that failed; the kernel prints 43 and 21."""
_GENERAL = {
    "x86_64": "rip rsp rax rbx rcx rdx rsi rdi rbp r8 r9 r10 r11 r12 r13 r14 r15",
    "aarch64": "pc lr sp " + " ".join(f"x{number}" for number in range(31)),
}
"""Registers to show, in this order; others come after them."""


def lines_of_failure(log: Sequence[LogRecord], cause: Cause) -> list[LogRecord]:
    """Return the kernel's lines of the first failure that the cause names."""
    own = [record for record in log if record.facility == _KERNEL]
    wanted = {record.sequence for record in cause.log}
    first = next((i for i, item in enumerate(own) if item.sequence in wanted), None)
    if first is None:
        return []
    caller = own[first].caller
    for i in range(max(first - _BEFORE, 0), first):
        if _CUT_HERE in own[i].text and own[i].caller == caller:
            first = i
            break
    found: list[LogRecord] = []
    for record in own[first : first + 4 * _MAX_LINES]:
        if record.caller != caller:
            continue
        found.append(record)
        if record.text.startswith(_ENDS) or len(found) == _MAX_LINES:
            break
    return found


def _texts(records: Sequence[LogRecord]) -> list[str]:
    return [line for record in records for line in record.text.split("\n")]


def trace_in_log(records: Sequence[LogRecord]) -> tuple[TraceEntry, ...]:
    """Return the stack trace in the lines of a failure."""
    return tuple(
        TraceEntry(
            item.function,
            item.offset,
            item.size,
            item.module,
            item.source,
            item.reliable,
            item.stack,
        )
        for item in parse_oops(_texts(records)).trace
    )


def fault_in_log(records: Sequence[LogRecord], machine: str | None) -> Fault | None:
    """
    Return the registers and the code that the kernel printed.

    :param records: The lines of a failure.
    :param machine: As ``uname -m`` prints it, if it is known otherwise.
    """
    oops = parse_oops(_texts(records))
    if not oops.registers and oops.code is None:
        return None
    registers = [Register(name, value) for name, value in oops.registers.items()]
    machine = machine or oops.machine
    if oops.code is None or machine is None:
        return Fault("log", registers)
    code, problem = _instructions(machine, oops.code, _address(oops))
    return Fault("log", registers, code, problem)


def choose_fault(memory: Fault | None, log: Fault | None) -> Fault | None:
    """Return the registers of memory, and the code of whichever has it."""
    if memory is None or (log is not None and not memory.registers):
        return log
    if not memory.code and log is not None and log.code:
        return replace(memory, code=log.code, problem=log.problem)
    return memory


def _address(oops: OopsText) -> int:
    """Return the address of the instruction that failed; 0 if it was not printed."""
    names = ("pc", "epc", "EIP")
    return next((oops.registers[name] for name in names if name in oops.registers), 0)


def fault_in_memory(prog: Program, machine: str, cpu: Cpu, frame: int) -> Fault | None:
    """
    Return the registers and the code of a frame on a CPU's stack.

    :param frame: Its index in the CPU's frames.
    :return: ``None`` if the frame has no registers.
    """
    pc = cpu.frames[frame].pc
    found = _find_frame(prog, cpu, pc)
    if found is None:
        return None
    values = found.registers()
    order = _GENERAL.get(machine, "").split()
    names = [name for name in order if name in values]
    names += [name for name in values if name not in order and name.islower()]
    registers = [Register(name, values[name]) for name in names]
    # A return address is behind the call.
    start = pc if cpu.frames[frame].interrupted or frame == 0 else pc - 1
    data = optional(lambda: prog.read(pc - _CODE_BEFORE, _CODE_BEFORE + _CODE_AFTER))
    if data is None:
        return Fault("memory", registers, problem="its code was not captured")
    if start != pc:
        return Fault("memory", registers)
    code, problem = _instructions(machine, CodeLine(data, _CODE_BEFORE), pc)
    return Fault("memory", registers, code, problem)


def _find_frame(prog: Program, cpu: Cpu, pc: int) -> StackFrame | None:
    def of_task() -> StackFrame | None:
        task = per_cpu(prog["runqueues"], cpu.number).curr.read_()
        trace = prog.stack_trace(task)
        return next((item for item in trace if _pc(item) == pc), None)

    def of_registers() -> StackFrame | None:
        trace = stack_of_registers(prog, cpu.number)
        return next((item for item in trace if _pc(item) == pc), None)

    return optional(of_task) or optional(of_registers)


def _pc(frame: StackFrame) -> int | None:
    try:
        return int(frame.pc)
    except ABSENT:
        return None


def _instructions(
    machine: str, line: CodeLine, address: int
) -> tuple[tuple[Instruction, ...], str | None]:
    """
    Return instructions with the offsets from the one that failed; why they lack text.

    :param address: Of the instruction that failed; what jumps name depends on it.
    """
    start = address - line.failed if address > line.failed else 0
    try:
        found = disassemble_around(machine, line.code, start, line.failed)
    except UnsupportedError as error:
        before, after = line.code[: line.failed], line.code[line.failed :]
        pieces = ((-line.failed, before), (0, after))
        bare = (Instruction(offset, data.hex(" ")) for offset, data in pieces if data)
        return tuple(bare), str(error)
    base = start + line.failed
    code = (Instruction(x.address - base, x.code.hex(" "), x.text) for x in found)
    return tuple(code), None


def find_machine_name(log: Sequence[LogRecord]) -> Hardware | None:
    """Return the machine that the log names."""
    own = (record for record in log if record.facility == _KERNEL)
    found = find_hardware(line for record in own for line in record.text.split("\n"))
    return Hardware(*found) if found else None
