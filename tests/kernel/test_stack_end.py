# SPDX-License-Identifier: GPL-2.0-or-later
"""
Stack traces that are cut off say so, and no others.

Each block of a stack that its trace read is taken out of a dead machine's memory, and
some that it did not read. By the first, the trace must be incomplete; by the others, it
must stay as it was.
"""

import re

import pytest
from drgn import Object, StackTrace
from drgn.helpers.linux.cpumask import for_each_online_cpu
from drgn.helpers.linux.mm import follow_phys
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.sched import cpu_curr

from kernel.test_attach import Altered
from kmemdump.kernel.attach import Kernel, attach
from kmemdump.memory.ranges import Range
from kmemdump.memory.spans import BLOCK_SIZE
from kmemdump.opening import open_target
from kmemdump.questions.crash_commands import command
from kmemdump.questions.question import attempt, explain
from kmemdump.report.gather import gather
from rigs.dead_machine import DeadMachine
from rigs.lacking_memory import attach_without
from rigs.scenarios import each_series_once

_TASKS = 12
_WHOLE = re.compile(
    r"ret_from_fork(_asm)?|(common_startup|secondary_startup)_64\w*"
    r"|__(primary|secondary)_switched|el0t_64_sync|asm_\w+|entry_SYSCALL_64\w*"
)
"""Where code of the kernel has nothing that called it, or user mode did."""


def ask(kernel: Kernel, text: str) -> tuple[str, BaseException | None, frozenset[int]]:
    with kernel.recorder.reading() as reading:
        answer, error = attempt(kernel.prog, command(text))
    return answer, error, frozenset(reading.blocks)


def frames(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.lstrip().startswith("#")]


def stack_blocks(kernel: Kernel, task: Object) -> list[int]:
    """Return the blocks of a task's stack, from the end that is used first."""
    prog = kernel.prog
    start, size = task.stack.value_(), prog["THREAD_SIZE"].value_()
    page = prog["PAGE_SIZE"].value_()
    found = []
    for address in range(start, start + size, page):
        physical = follow_phys(prog["init_mm"].address_of_(), address).value_()
        first = physical // BLOCK_SIZE
        found += range(first, first + page // BLOCK_SIZE)
    return found[::-1]


def some_tasks(kernel: Kernel) -> list[Object]:
    """Return each CPU's task, and some others."""
    tasks = list(for_each_task(kernel.prog, idle=True))
    cpus = for_each_online_cpu(kernel.prog)
    current = [cpu_curr(kernel.prog, cpu).read_() for cpu in cpus]
    return [*current, *tasks[:: len(tasks) // _TASKS + 1]]


@each_series_once
def test_all_traces_of_all_memory_are_whole(dead: DeadMachine) -> None:
    target = open_target(f"qmp:{dead.machine.qmp}")
    try:
        for vmlinux in (None, dead.vmlinux):
            kernel = attach(target, vmlinux=vmlinux)
            text, error, _ = ask(kernel, "foreach bt")
            assert error is None
            tasks = list(for_each_task(kernel.prog, idle=True))
            assert text.count("PID: ") == len(tasks) > 200
            for task in tasks:
                names = [frame.name for frame in kernel.prog.stack_trace(task)]
                if task.pid:  # Of a CPU that was idle, the registers are not its own.
                    assert any(_WHOLE.fullmatch(name or "") for name in names[-2:])
    finally:
        target.close()


@each_series_once
def test_a_trace_lacks_a_block_that_it_read(dead: DeadMachine) -> None:
    target = open_target(f"qmp:{dead.machine.qmp}")
    try:
        whole = attach(target)
        known = whole.own_debug_info
        for task in some_tasks(whole):
            question = f"bt {task.value_():x}"
            expected, error, read = ask(attach_without(target, (), known), question)
            assert error is None
            blocks = stack_blocks(whole, task)
            used = [block for block in blocks if block in read]
            assert used
            for block in used:
                lacking = attach_without(target, {block}, known)
                text, error, _ = ask(lacking, question)
                assert error is not None, (question, block)
                found = frames(text)
                assert found == frames(expected)[: len(found)]
            for block in [block for block in blocks if block not in read][:2]:
                lacking = attach_without(target, {block}, known)
                assert ask(lacking, question)[:2] == (expected, None)
    finally:
        target.close()


@each_series_once
def test_a_report_says_which_stack_is_cut_off(dead: DeadMachine) -> None:
    target = open_target(f"qmp:{dead.machine.qmp}")
    try:
        whole = attach(target)
        assert gather(whole, "test").missing == ()
        task = cpu_curr(whole.prog, 0).read_()
        _, _, read = ask(whole, f"bt {task.value_():x}")
        block = next(it for it in stack_blocks(whole, task) if it in read)
        report = gather(attach_without(target, {block}, whole.own_debug_info), "test")
        losses = {loss.what: loss.why for loss in report.missing}
        assert "cut off: memory at 0xffff" in losses["the stack of CPU 0"]
        assert "cut off: memory at 0xffff" in str(report)
        cpu = next(cpu for cpu in report.cpus if cpu.number == 0)
        assert cpu.frames
    finally:
        target.close()


@each_series_once
def test_all_traces_where_some_are_missing(dead: DeadMachine) -> None:
    """Those that are left are printed; a task without a stack is no gap."""
    target = open_target(f"qmp:{dead.machine.qmp}")
    try:
        whole = attach(target)
        known = whole.own_debug_info
        expected, error, _ = ask(whole, "foreach bt")
        assert error is None
        tasks = [
            it for it in for_each_task(whole.prog) if it.comm.string_() == b"sleep"
        ]
        first, second = tasks[10], tasks[20]
        blocks = {*stack_blocks(whole, first), *stack_blocks(whole, second)}
        text, error, _ = ask(attach_without(target, blocks, known), "foreach bt")
        assert error is not None
        for task in (first, second):
            assert f"{task.value_():x}" in explain(error) or task.pid.value_() in map(
                int, re.findall(r"PID ([0-9]+)", explain(error))
            )
        assert text.count("PID: ") == expected.count("PID: ")
        assert 0 < len(frames(expected)) - len(frames(text)) < 60
    finally:
        target.close()


def _trace(kernel: Kernel, task: Object) -> StackTrace:
    """Return what drgn itself says of a task."""
    kind = "struct task_struct *"
    return kernel.prog.stack_trace(Object(kernel.prog, kind, value=task.value_()))


@each_series_once
@pytest.mark.parametrize("distance", [256, -256, None])
def test_a_guess_by_the_frame_pointer_is_left_out(
    dead: DeadMachine, distance: int | None
) -> None:
    """
    The return address is missing, and the register leads to a word like one: behind,
    before, or in other memory.
    """
    target = Altered(open_target(f"qmp:{dead.machine.qmp}"))
    try:
        whole = attach(target)
        prog = whole.prog
        if not prog.symbols("__start_orc_unwind"):
            pytest.skip("frame records are all that it has")

        def physical(address: int) -> int:
            return int(follow_phys(prog["init_mm"].address_of_(), address).value_())

        task = next(it for it in for_each_task(prog) if it.comm.string_() == b"sleep")
        expected, _, _ = ask(whole, f"bt {task.value_():x}")
        sleeping = Object(
            prog, "struct inactive_task_frame *", value=task.thread.sp.value_()
        )
        # __schedule() has a frame record; schedule(), which called it, has none.
        own = sleeping.bp.value_()
        guessed = prog["init_uts_ns"].address_ if distance is None else own + distance
        guess = prog.symbol("vfs_read").address + 16
        target.words[physical(own)] = guessed
        target.words[physical(guessed)] = 0
        target.words[physical(guessed + 8)] = guess
        returns = _trace(whole, task)[2].sp - 8
        for address in range(own + 16, returns, 8):  # As if it were saved there, too.
            target.words[physical(address)] = guessed
        target.gone += [
            Range(physical(address), 8) for address in range(returns, own + 256, 8)
        ]
        lacking = attach(target, known=whole.own_debug_info)
        pcs = [frame.pc for frame in _trace(lacking, task)]
        assert guess in pcs, "or this test would prove nothing"
        text, error, _ = ask(lacking, f"bt {task.value_():x}")
        assert error is not None
        assert frames(text) == frames(expected)[: len(frames(text))] != []
    finally:
        target.close()
