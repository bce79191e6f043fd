# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel memory that is read with one walk for each page is what drgn finds there."""

import pytest
from drgn import FaultError
from drgn.helpers.linux.pid import for_each_task

from kmemdump.kernel.attach import _program, attach
from kmemdump.memory.recorder import Recorder
from kmemdump.opening import open_target
from kmemdump.questions.crash_commands import command
from kmemdump.questions.question import answer
from rigs.dead_machine import DeadMachine
from rigs.scenarios import each_architecture

PAGE = 4096


@each_architecture
def test_it_is_what_drgn_finds_by_its_own_walk(dead: DeadMachine) -> None:
    target = open_target(f"qmp:{dead.machine.qmp}")
    try:
        prog = attach(target).prog
        plain = _program(target, Recorder(target.memory), ())
        size = prog["THREAD_SIZE"].value_()
        assert size > PAGE
        image = prog.symbol("_stext").address
        stacks = [task.stack.value_() for task in for_each_task(prog)]
        direct = prog["init_task"].tasks.next.value_()
        for start in (image, direct, *stacks[:50]):
            # Within a page, and across the ends of two.
            for address, count in ((start + 8, 8), (start + PAGE - 3, PAGE + 6)):
                assert prog.read(address, count) == plain.read(address, count)
        for guard in (stack - 1 for stack in stacks[:3]):
            for program in (prog, plain):
                with pytest.raises(FaultError, match="address is not mapped"):
                    program.read(guard, 1)
    finally:
        target.close()


@each_architecture
def test_one_walk_for_each_page(dead: DeadMachine) -> None:
    target = open_target(f"qmp:{dead.machine.qmp}")
    try:
        kernel = attach(target)
        with kernel.recorder.reading() as reading:
            frames = answer(kernel.prog, command("foreach bt")).count("\n #")
        assert frames > 1000
        assert reading.reads < 20 * frames
    finally:
        target.close()
