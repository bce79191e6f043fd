# SPDX-License-Identifier: GPL-2.0-or-later
"""A monitor that falls silent, and speaks again."""

from types import SimpleNamespace

import pytest

from kmemdump.bounds import steps
from kmemdump.targets.qmp_channel import QmpChannel, QmpTimeoutError
from kmemdump.watch.reporter import Reporter
from kmemdump.watch.vm_control import VmControl


def test_an_event_ends_the_silence():
    events = []
    client = SimpleNamespace(
        connected=True, event=lambda timeout=0.0: events.pop(0) if events else None
    )
    target = SimpleNamespace(
        client=client, note_event=lambda event: None, follow_memory=lambda: None
    )
    said = []
    control = VmControl(target, Reporter("vm", said.append, lambda: False))
    for _ in range(2):
        control.note_error(QmpTimeoutError("no answer"))
        assert not control.answers
    assert len(said) == 1
    assert control.next_event(0) is None
    assert not control.answers
    events.append({"event": "LIBVIRT_CONNECTED"})
    assert control.next_event(0) is None
    assert control.answers
    control.note_error(QmpTimeoutError("no answer"))
    assert len(said) == 2


class LateMonitor(QmpChannel):
    """Of a VM that does what it is told too late for an answer."""

    connected = True

    def __init__(self, state):
        super().__init__("vm")
        self.state = state
        self.told = []

    def execute(self, command, arguments=None, timeout=None):
        if command == "query-status":
            return {"status": self.state}
        if command == "query-migrate":
            return {}
        self.told.append(command)
        self.state = {"stop": "paused", "cont": "running"}[command]
        raise QmpTimeoutError(f"{command}: no answer")

    def send_fd(self, fd, name):
        raise NotImplementedError

    def close(self):
        pass


def control_of(monitor):
    target = SimpleNamespace(
        name="vm", client=monitor, status=monitor.status, cont=monitor.resume
    )
    return VmControl(target, Reporter("vm", lambda event: None, lambda: False))


@pytest.fixture
def held(monkeypatch):
    calls = []
    monkeypatch.setattr(steps, "_state", None)
    monkeypatch.setattr(
        "kmemdump.watch.vm_control.hold", lambda value, name="": calls.append(value)
    )
    return calls


def test_a_short_pause_ends_whatever_is_answered(held):
    monitor = LateMonitor("running")
    with pytest.raises(ZeroDivisionError), control_of(monitor).paused():
        _ = 1 / (len(held) - 1)  # It is held now.
    assert monitor.told == ["stop", "cont"]
    assert (monitor.state, held) == ("running", [True, False])


def test_a_pause_without_an_answer_counts():
    monitor = LateMonitor("running")
    assert control_of(monitor).stop()  # So whoever paused it lets it go on.
    assert not control_of(monitor).stop()


def test_a_vm_that_its_user_paused_stays_paused(held):
    monitor = LateMonitor("paused")
    with control_of(monitor).paused():
        assert held == []  # Nobody lets it go if this process is ended.
    assert (monitor.state, monitor.told) == ("paused", [])


def test_a_vm_that_is_migrated_meanwhile_does_not_go_on(held):
    monitor = LateMonitor("running")
    with control_of(monitor).paused():
        monitor.state = "postmigrate"
    assert (monitor.state, monitor.told) == ("postmigrate", ["stop"])


def test_who_has_paused_it():
    monitor = LateMonitor("paused")
    control = control_of(monitor)
    assert not control.stop()
    assert control.is_left_paused
    monitor.state = "running"
    assert not control.is_left_paused
    assert control.stop()
    assert not control.is_left_paused
    monitor.state = "prelaunch"  # It was reset as well.
    assert not control.is_left_paused
    control.cont()
    assert not control.has_stopped
