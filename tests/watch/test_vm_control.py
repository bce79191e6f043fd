# SPDX-License-Identifier: GPL-2.0-or-later
"""A monitor that falls silent, and speaks again."""

from types import SimpleNamespace

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
