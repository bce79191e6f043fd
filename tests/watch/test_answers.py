# SPDX-License-Identifier: GPL-2.0-or-later
"""Answers that a refresh of the marks loses."""

import struct

import pytest

from kmemdump.marking.selection import select
from kmemdump.targets.qmp import QmpTarget
from kmemdump.watch.answers import describe_lost
from kmemdump.watch.kernel_variables import resolver
from kmemdump.watch.vm_marks import VmMarks

pytestmark = pytest.mark.vm


def test_lost_and_given_again(booted):
    """A list of the kernel leads nowhere for a while."""
    machine = booted("6.12")
    with QmpTarget(machine.qmp) as target:
        machine.pause()
        marks = VmMarks(target, select(areas=["kmsg", "modules"]))
        assert marks.answers.lost == {}
        regions = set(marks.registry)
        prog = marks.capture.kernel.prog
        at = resolver(marks.capture.kernel)(prog.symbol("modules").address, 8)
        before = target.memory.read(at, 8)
        with machine.ram.open("r+b") as ram:

            def store(data: bytes) -> None:
                ram.seek(at)
                ram.write(data)
                ram.flush()

            store(struct.pack("<Q", 0xFFFF_FFFF_FFFF_F000))
            marks.refresh()
            assert {area for area, _ in marks.answers.lost} == {"modules"}
            assert "(area modules): " in describe_lost(marks.answers.lost)
            # What it answered before is still registered.
            assert regions <= set(marks.registry)
            marks.refresh()
            assert marks.answers.lost
            store(before)
        marks.refresh()
        assert marks.answers.lost == {}
        assert {it.range for it in marks.registry} == {it.range for it in regions}


def test_many_are_not_all_named():
    lost = {("sched", f"bt {i}"): "no stack" for i in range(9)}
    assert describe_lost(lost) == (
        "bt 0 (area sched): no stack; bt 1 (area sched): no stack; "
        "bt 2 (area sched): no stack; and 6 more"
    )
    assert describe_lost({("modules", "modules"): "gone"}) == "modules: gone"
