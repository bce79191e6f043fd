# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU's events mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.watch.qmp_events import VmEvent, VmEventKind, interpret_event

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


# As QEMU 7.2 sends them (qapi/run-state.json).
@pytest.mark.parametrize(
    ("name", "data", "kind", "guest", "reboot"),
    [
        ("GUEST_PANICKED", {"action": "pause"}, VmEventKind.PANIC, True, False),
        ("GUEST_CRASHLOADED", {"action": "run"}, VmEventKind.PANIC, True, False),
        ("WATCHDOG", {"action": "pause"}, VmEventKind.WATCHDOG, True, False),
        ("WATCHDOG", {"action": "inject-nmi"}, VmEventKind.NMI, True, False),
        (
            "RESET",
            {"guest": True, "reason": "guest-reset"},
            *(VmEventKind.RESET, True, False),
        ),
        (
            "RESET",
            {"guest": False, "reason": "host-qmp-system-reset"},
            *(VmEventKind.RESET, False, False),
        ),
        (
            "SHUTDOWN",
            {"guest": True, "reason": "guest-reset"},
            *(VmEventKind.SHUTDOWN, True, True),
        ),
        (
            "SHUTDOWN",
            {"guest": True, "reason": "guest-shutdown"},
            *(VmEventKind.SHUTDOWN, True, False),
        ),
        (
            "SHUTDOWN",
            {"guest": False, "reason": "host-signal"},
            *(VmEventKind.SHUTDOWN, False, False),
        ),
    ],
)
def test_events(name, data, kind, guest, reboot):
    event = interpret_event({"event": name, "data": data, "timestamp": {"seconds": 1}})
    assert event is not None
    assert (event.kind, event.guest, event.reboot) == (kind, guest, reboot)


def test_more_about_events():
    event = interpret_event({"event": "WATCHDOG", "data": {"action": "reset"}})
    assert event.action == "reset"
    data = {"guest": False, "reason": "snapshot-load"}
    assert interpret_event({"event": "RESET", "data": data}).snapshot
    event = interpret_event({"event": "SUSPEND_DISK"})
    assert event.kind is VmEventKind.HIBERNATION


@pytest.mark.parametrize("name", ["STOP", "RESUME", "RTC_CHANGE", "", None])
def test_of_no_interest(name):
    assert interpret_event({"event": name, "data": {"action": "pause"}}) is None


@given(
    st.sampled_from(["GUEST_PANICKED", "WATCHDOG", "RESET", "SHUTDOWN", "STOP", 1]),
    JSON | st.fixed_dictionaries({}, optional={"action": JSON, "reason": JSON}),
)
def test_any_event(name, data):
    event = interpret_event({"event": name, "data": data})
    assert event is None or isinstance(event, VmEvent)
    if event is not None:
        assert event.text.isprintable()
        assert len(event.text) < 100
