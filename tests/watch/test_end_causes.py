# SPDX-License-Identifier: GPL-2.0-or-later
"""What the end of a VM means: judgement on a kernel's state and an event."""

import pytest

from kmemdump.diagnosis.death_kind import DeathKind
from kmemdump.diagnosis.end_patterns import OrderlyEnd
from kmemdump.watch.end_causes import (
    DumpCause,
    VmAfterDeath,
    WatchEnd,
    judge_first_look,
    judge_qemu_end,
    judge_reset,
    judge_shutdown,
    judge_watchdog,
)
from kmemdump.watch.events import EventName
from kmemdump.watch.liveness import KernelState
from kmemdump.watch.qmp_events import VmEvent, VmEventKind

RUNS = KernelState(True, False, False, True, False)
PANICKED = KernelState(True, True, False, True, False)
EMERGENCY = KernelState(True, False, False, False, True)
"""emergency_restart() since v6.7: system_state as for a restart, and no word."""


def told(end):
    return KernelState(True, False, False, False, True, end)


class Control:
    """A VM in some state, and the event that comes next."""

    def __init__(self, status="running", event=None):
        self.state, self.event, self.asked = status, event, []

    def status(self):
        return self.state

    def stop(self):
        self.asked.append("stop")
        return True

    def next_event(self, timeout):
        return self.event


GUEST = VmEvent(VmEventKind.RESET, "guest-reset")
HOST = VmEvent(VmEventKind.RESET, "host-qmp-system-reset", guest=False)
SNAPSHOT = VmEvent(VmEventKind.RESET, "snapshot-load", guest=False, snapshot=True)


@pytest.mark.parametrize(
    ("kernel", "event", "by_fault", "kind", "vm"),
    [
        (PANICKED, GUEST, True, DeathKind.PANIC, VmAfterDeath.RESET_BY_GUEST),
        (PANICKED, HOST, True, DeathKind.PANIC, VmAfterDeath.RESET_BY_HOST),
        (EMERGENCY, GUEST, True, DeathKind.RESET, VmAfterDeath.RESET_BY_GUEST),
        (RUNS, GUEST, True, DeathKind.TRIPLE_FAULT, VmAfterDeath.RESET_BY_GUEST),
        (RUNS, GUEST, False, DeathKind.RESET, VmAfterDeath.RESET_BY_GUEST),
        (RUNS, HOST, True, DeathKind.HOST_RESET, VmAfterDeath.RESET_BY_HOST),
        (EMERGENCY, HOST, True, DeathKind.HOST_RESET, VmAfterDeath.RESET_BY_HOST),
    ],
)
def test_resets(kernel, event, by_fault, kind, vm):
    found = judge_reset(kernel, event, 1.0, by_fault=by_fault)
    assert isinstance(found, DumpCause)
    assert (found.kind, found.vm, found.noticed) == (kind, vm, 1.0)
    assert not found.found
    assert not found.survived


@pytest.mark.parametrize("end", list(OrderlyEnd))
def test_only_the_log_makes_a_reset_orderly(end):
    found = judge_reset(told(end), GUEST, 1.0, by_fault=True)
    text = "rebooted in an orderly way: no core image"
    assert found == WatchEnd(text, True, EventName.ORDERLY)


def test_snapshot():
    found = judge_reset(RUNS, SNAPSHOT, 1.0, by_fault=True)
    assert isinstance(found, WatchEnd)
    assert found.boots_again


def shutdown(reason, **fields):
    return VmEvent(VmEventKind.SHUTDOWN, reason, **fields)


@pytest.mark.parametrize(
    ("kernel", "event", "status", "in_memory", "expected"),
    [
        (PANICKED, shutdown("guest-reset", reboot=True), "shutdown", True, "panic"),
        (EMERGENCY, shutdown("guest-reset", reboot=True), "shutdown", True, "reset"),
        (RUNS, shutdown("guest-reset", reboot=True), "shutdown", True, "triple-fault"),
        # QEMU was told to end at a reset, and the memory is gone with it.
        (EMERGENCY, shutdown("guest-reset", reboot=True), None, False, "reset"),
        (RUNS, shutdown("guest-shutdown"), "shutdown", True, "shutdown"),
        (EMERGENCY, shutdown("guest-shutdown"), "shutdown", True, "shutdown"),
        (
            RUNS,
            shutdown("host-qmp-system-reset", guest=False, reboot=True),
            *("shutdown", True, "host-reset"),
        ),
        (RUNS, shutdown("guest-shutdown"), None, False, "powered off, and its memory"),
        (RUNS, shutdown("host-signal", guest=False), None, False, "ended by its host"),
        (
            told(OrderlyEnd.POWER_OFF),
            *(
                shutdown("guest-shutdown"),
                "shutdown",
                True,
                "powered off in an orderly",
            ),
        ),
        (
            told(OrderlyEnd.RESTART),
            *(shutdown("guest-reset", reboot=True), "shutdown", True),
            "rebooted in an orderly way: no core image; resetting",
        ),
        (
            told(OrderlyEnd.RESTART),
            *(shutdown("guest-reset", reboot=True), None, False),
            "rebooted in an orderly way: no core image",
        ),
    ],
)
def test_shutdowns(kernel, event, status, in_memory, expected):
    found = judge_shutdown(
        Control(status), kernel, event, 1.0, by_fault=True, in_memory=in_memory
    )
    if isinstance(found, DumpCause):
        assert found.kind == expected
        waits = found.vm is VmAfterDeath.WAITS_FOR_RESET
        assert waits == (found.kind == DeathKind.HOST_RESET)
    else:
        assert found.text.startswith(expected)


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [(RUNS, "qemu-ended"), (EMERGENCY, "qemu-ended"), (PANICKED, "panic")],
)
def test_end_of_qemu(kernel, kind):
    found = judge_qemu_end(kernel)
    assert isinstance(found, DumpCause)
    assert (found.kind, found.vm) == (kind, VmAfterDeath.ENDED)
    end = judge_qemu_end(told(OrderlyEnd.POWER_OFF))
    assert "orderly" in end.text


@pytest.mark.parametrize(
    ("action", "next_event", "vm"),
    [
        ("pause", None, VmAfterDeath.STAYS),
        ("none", None, VmAfterDeath.MAY_RUN),
        ("reset", GUEST, VmAfterDeath.RESET_BY_GUEST),
        ("reset", shutdown("guest-reset", reboot=True), VmAfterDeath.STAYS),
    ],
)
def test_watchdog(action, next_event, vm):
    control = Control(event=next_event)
    event = VmEvent(VmEventKind.WATCHDOG, "the watchdog expired", action=action)
    found = judge_watchdog(control, event, 1.0)
    assert (found.kind, found.vm) == (DeathKind.WATCHDOG, vm)
    assert control.asked == ["stop"]


@pytest.mark.parametrize(
    ("kernel", "status", "kind"),
    [
        (PANICKED, "running", "panic"),
        (PANICKED, "guest-panicked", "panic"),
        (RUNS, "watchdog", "watchdog"),
        (RUNS, "internal-error", "internal-error"),
        (EMERGENCY, "shutdown", "shutdown"),
        (RUNS, "running", None),
        (RUNS, "paused", None),
        (RUNS, None, None),
    ],
)
def test_first_look(kernel, status, kind):
    for lives in (True, False):
        found = judge_first_look(kernel, status, lives=lives)
        assert (found and found.kind) == kind
        if found:
            assert found.found is not lives
            assert found.text.startswith("dead before the watch began: ") is not lives
    end = judge_first_look(told(OrderlyEnd.POWER_OFF), "shutdown", lives=False)
    assert end.text == "has shut down in an orderly way already: no core image"
