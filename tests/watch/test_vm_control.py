# SPDX-License-Identifier: GPL-2.0-or-later
"""A monitor that falls silent, and speaks again."""

from types import SimpleNamespace

import pytest

from kmemdump.bounds import steps
from kmemdump.targets.qmp_channel import QmpTimeoutError
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


class Pausing(VmControl):
    """With a VM that only notes what it is told."""

    def __init__(self, state):
        super().__init__(SimpleNamespace(name="vm"), None)
        self.state = state
        self.told = []

    def status(self):
        return self.state

    def _ask(self, what, command, arguments=None):
        self.told.append(command)
        self.state = {"stop": "paused", "cont": "running"}[command]
        return command == "cont"  # QEMU stops too late for its answer.


@pytest.fixture
def held(monkeypatch):
    calls = []
    monkeypatch.setattr(steps, "_state", None)
    monkeypatch.setattr(
        "kmemdump.watch.vm_control.hold", lambda value, name="": calls.append(value)
    )
    return calls


def test_a_short_pause_ends_whatever_is_answered(held):
    control = Pausing("running")
    with pytest.raises(ZeroDivisionError), control.paused():
        _ = 1 / (len(held) - 1)  # It is held now.
    assert control.told == ["stop", "cont"]
    assert (control.state, held) == ("running", [True, False])


def test_a_vm_that_its_user_paused_stays_paused(held):
    control = Pausing("paused")
    with control.paused():
        assert held == []  # Nobody lets it go if this process is ended.
    assert (control.state, control.told) == ("paused", [])
