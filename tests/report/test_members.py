# SPDX-License-Identifier: GPL-2.0-or-later
"""A report of a kernel that lacks a member lacks no more than that."""

from kmemdump.kernel.attach import attach
from kmemdump.opening import open_target
from kmemdump.report import cpus, gather
from rigs.dead_machine import DeadMachine
from rigs.scenarios import once


@once
def test_a_time_that_a_kernel_does_not_keep(dead: DeadMachine, monkeypatch) -> None:
    """As idle_exittime, which v7.2 removed."""
    monkeypatch.setattr(cpus, "_IDLE_TIMES", ("no_such_time", "idle_entrytime"))
    target = open_target(f"qmp:{dead.machine.qmp}")
    try:
        prog = attach(target).prog
        now = cpus.find_now(prog)
        monkeypatch.setattr(cpus, "_IDLE_TIMES", ("idle_entrytime",))
        assert now == cpus.find_now(prog) > 0
        assert gather(attach(target), "test").missing == ()
    finally:
        target.close()
