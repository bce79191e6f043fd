# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM that QEMU stops since KVM cannot run it on: no event tells, its state does."""

import pytest

from kmemdump.diagnosis.death_kind import DeathKind
from kmemdump.marking.selection import select
from kmemdump.opening import open_target
from kmemdump.watch.first_look import FirstLook
from kmemdump.watch.monitor import Monitor
from kmemdump.watch.reporter import Reporter
from kmemdump.watch.settings import Settings
from kmemdump.watch.vm_control import VmControl

pytestmark = pytest.mark.vm


class ErrorControl(VmControl):
    """Of a VM that is stopped by an internal error instead of a person."""

    def status(self):
        status = super().status()
        return "internal-error" if status == "paused" else status


def test_it_is_a_death(booted, tmp_path):
    machine = booted("6.12")
    reporter = Reporter("vm", lambda event: None, lambda: False)
    with open_target(f"qmp:{machine.qmp}") as target:
        control = ErrorControl(target, reporter)
        selection = select(areas=["coreinfo", "kmsg"])
        kernel = FirstLook(control, selection, reporter).wait()
        assert kernel is not None
        monitor = Monitor(control, kernel, Settings(tmp_path, interval=0.1), reporter)
        machine.pause()
        found = monitor.run()
    assert (found.kind, found.found) == (DeathKind.INTERNAL_ERROR, False)
