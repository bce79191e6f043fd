# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU's events mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.watch.qmp_events import Notice, NoticeKind, interpret

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


# As QEMU 7.2 sends them (qapi/run-state.json).
@pytest.mark.parametrize(
    ("name", "data", "kind", "guest", "reboot"),
    [
        ("GUEST_PANICKED", {"action": "pause"}, NoticeKind.PANIC, True, False),
        ("GUEST_CRASHLOADED", {"action": "run"}, NoticeKind.PANIC, True, False),
        ("WATCHDOG", {"action": "pause"}, NoticeKind.WATCHDOG, True, False),
        ("WATCHDOG", {"action": "inject-nmi"}, NoticeKind.INJECTED, True, False),
        (
            "RESET",
            {"guest": True, "reason": "guest-reset"},
            *(NoticeKind.RESET, True, False),
        ),
        (
            "RESET",
            {"guest": False, "reason": "host-qmp-system-reset"},
            *(NoticeKind.RESET, False, False),
        ),
        (
            "SHUTDOWN",
            {"guest": True, "reason": "guest-reset"},
            *(NoticeKind.SHUTDOWN, True, True),
        ),
        (
            "SHUTDOWN",
            {"guest": True, "reason": "guest-shutdown"},
            *(NoticeKind.SHUTDOWN, True, False),
        ),
        (
            "SHUTDOWN",
            {"guest": False, "reason": "host-signal"},
            *(NoticeKind.SHUTDOWN, False, False),
        ),
    ],
)
def test_notices(name, data, kind, guest, reboot):
    notice = interpret({"event": name, "data": data, "timestamp": {"seconds": 1}})
    assert notice is not None
    assert (notice.kind, notice.guest, notice.reboot) == (kind, guest, reboot)


@pytest.mark.parametrize("name", ["STOP", "RESUME", "RTC_CHANGE", "", None])
def test_of_no_interest(name):
    assert interpret({"event": name, "data": {"action": "pause"}}) is None


@given(
    st.sampled_from(["GUEST_PANICKED", "WATCHDOG", "RESET", "SHUTDOWN", "STOP", 1]),
    JSON | st.fixed_dictionaries({}, optional={"action": JSON, "reason": JSON}),
)
def test_any_event(name, data):
    notice = interpret({"event": name, "data": data})
    assert notice is None or isinstance(notice, Notice)
    if notice is not None:
        assert notice.text.isprintable()
        assert len(notice.text) < 100
