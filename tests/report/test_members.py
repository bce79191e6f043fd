# SPDX-License-Identifier: GPL-2.0-or-later
"""A report of a kernel that lacks a member, or of a dump, lacks no more than that."""

from dataclasses import replace

import pytest
from drgn.helpers.linux.mm import follow_phys
from drgn.helpers.linux.pid import for_each_task

from kmemdump.kernel.attach import attach
from kmemdump.kernel.types import BtfTypes
from kmemdump.memory.spans import BLOCK_SIZE
from kmemdump.opening import open_target
from kmemdump.report.gather import gather
from kmemdump.report.report import Report
from kmemdump.targets import Target
from rigs.dead_machine import DeadMachine
from rigs.lacking_memory import attach_without
from rigs.scenarios import once


def report_without(target: Target, member: str, monkeypatch) -> Report:
    """Report what happened to a kernel in whose types a member has another name."""
    make = BtfTypes._member

    def hiding(self, found, last):
        if found.name == member:
            found = replace(found, name="of_another_kernel")
        return make(self, found, last)

    with monkeypatch.context() as patch:
        patch.setattr(BtfTypes, "_member", hiding)
        return gather(attach(target), "test")


@once
@pytest.mark.parametrize(
    ("member", "lost"),
    [
        ("idle_exittime", []),  # v7.2 removed it.
        ("idle_entrytime", []),
        ("expires_next", []),  # Of each CPU, whether its timer was due.
        ("nodename", ["the kernel's hostname"]),
        ("xtime_nsec", ["the date", "the uptime"]),
        ("kstat_irqs", ["the interrupts"]),
        ("exit_state", ["the blocked tasks"]),
    ],
)
def test_a_member_that_a_kernel_lacks(
    dead: DeadMachine, member: str, lost: list[str], monkeypatch
) -> None:
    target = open_target(f"qmp:{dead.machine.qmp}")
    try:
        report = report_without(target, member, monkeypatch)
        assert [loss.what for loss in report.missing] == lost
        assert report.log
        assert report.cause.kind
        assert len(report.tasks) > 200
    finally:
        target.close()


@once
def test_a_task_that_is_missing(dead: DeadMachine) -> None:
    """As one that began after the last look."""
    target = open_target(f"qmp:{dead.machine.qmp}")
    try:
        whole = attach(target)
        expected = gather(whole, "test").tasks
        tasks = for_each_task(whole.prog)
        task = [it for it in tasks if it.comm.string_() == b"sleep"][100]
        place = follow_phys(whole.prog["init_mm"].address_of_(), task.comm.address_)
        block = place.value_() // BLOCK_SIZE
        report = gather(attach_without(target, {block}, whole.own_debug_info), "test")
        assert whole.prog.type("struct task_struct").size > BLOCK_SIZE
        lost = ["a part of the tasks", "a part of the stacks of the tasks"]
        assert [loss.what for loss in report.missing] == lost
        assert list(report.tasks) == [
            it for it in expected if it.pid != task.pid.value_()
        ]
    finally:
        target.close()
