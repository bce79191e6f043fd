# SPDX-License-Identifier: GPL-2.0-or-later
"""What is asked of a kernel of which drgn finds no clock is incomplete."""

from drgn.helpers.linux.pid import find_task

from kmemdump.areas.coreinfo import COREINFO
from kmemdump.cli.main import main
from kmemdump.kernel.attach import attach
from kmemdump.kernel.variables import VARIABLES
from kmemdump.marking.mark import mark
from kmemdump.opening import open_target
from kmemdump.questions.crash_commands import command
from rigs.dead_machine import DeadMachine
from rigs.scenarios import once


@once
def test_a_kernel_whose_clock_is_not_known(
    dead: DeadMachine, monkeypatch, capsys
) -> None:
    """As those since v6.17 were, whose tk_core is an element of an array."""
    for name in ("tk_core", "timekeeper_data"):
        monkeypatch.delitem(VARIABLES, name)
    name = f"qmp:{dead.machine.qmp}"
    target = open_target(name)
    try:
        reason = mark(attach(target), [COREINFO]).areas[0].reason
    finally:
        target.close()
    assert reason is not None
    assert reason.startswith("sys: couldn't get DATE: could not find 'tk_core'; ")
    assert "couldn't get UPTIME" in reason

    assert main(["ask", name, "sys"]) == 1
    said = capsys.readouterr()
    assert "RELEASE: " in said.out
    assert said.err.count("couldn't get DATE") == 1


@once
def test_a_task_that_ends_has_no_namespaces(core_image, capsys) -> None:
    """The initial ones are asked about then; a core image has them."""
    target = open_target(str(core_image))
    try:
        prog = attach(target).prog
        prog.config["crash_context"] = task = find_task(prog, 1)
        told = []
        for ends in (False, True):
            if ends:
                place = task.nsproxy.address_of_().value_()
                prog.add_memory_segment(place, 8, lambda *_: bytes(8), False)
            for text in ("mount", "ipcs"):
                command(text).put(prog)
                told.append(capsys.readouterr().out)
    finally:
        target.close()
    assert "/proc" in told[0]
    assert told[2:] == told[:2]
