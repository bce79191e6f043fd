# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections to a libvirt daemon that is not there, or does not answer."""

import socket
import threading
import time
from types import SimpleNamespace

import pytest

from kmemdump.errors import TargetError, UsageError
from kmemdump.targets.libvirt.crash_action import crash_action
from kmemdump.targets.libvirt.target import split_spec
from kmemdump.targets.qmp_channel import QmpChannel

pytest.importorskip("libvirt", reason="installed by 'make test'")

from kmemdump.targets.libvirt.channel import LibvirtChannel
from kmemdump.targets.libvirt.connection import LibvirtConnection


def test_no_daemon(tmp_path):
    with pytest.raises(TargetError, match="connecting: Failed to connect socket"):
        LibvirtConnection(f"qemu+unix:///system?socket={tmp_path}/none", 5)


def test_a_silent_daemon_holds_up_few_threads(tmp_path):
    path = tmp_path / "silent"
    before = threading.active_count()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(64)
        for _ in range(20):
            with pytest.raises(TargetError, match="answer"):
                LibvirtConnection(f"qemu+unix:///system?socket={path}", 0.05)
        assert threading.active_count() - before < 12
        server.settimeout(30)
        for _ in range(4):  # They end with the daemon.
            server.accept()[0].close()
    deadline = time.monotonic() + 60
    while threading.active_count() > before + 1:  # One has libvirt's events.
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with pytest.raises(TargetError, match="Failed to connect"):
        LibvirtConnection(f"qemu+unix:///system?socket={path}", 5)


class LateLock:
    """What the threads of calls get late, as on a busy host."""

    def __init__(self):
        self._lock = threading.Lock()

    def __enter__(self):
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.1)
        self._lock.acquire()

    def __exit__(self, *_):
        self._lock.release()


def test_a_call_that_was_answered_waits_no_more():
    connection = object.__new__(LibvirtConnection)
    connection.name, connection._timeout = "libvirt", 60
    connection._stuck, connection._lock = 0, LateLock()
    for number in range(12):  # More than may wait.
        assert connection.call(lambda it=number: it, "a call") == number


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("web1", ("", "web1")),
        ("web#1", ("", "web#1")),
        ("qemu:///session#web1", ("qemu:///session", "web1")),
        ("qemu:///session#a#b", ("qemu:///session", "a#b")),
    ],
)
def test_specs(text, parts):
    assert split_spec(text) == parts


def test_no_domain():
    with pytest.raises(UsageError, match="no domain"):
        split_spec("qemu:///system#")


@pytest.mark.parametrize(
    ("xml", "action"),
    [
        ("<domain><on_crash>restart</on_crash></domain>", "restart"),
        ("<domain/>", "destroy"),
        ("<dom", "destroy"),
    ],
)
def test_crash_action(xml, action):
    assert crash_action(xml) == action


@pytest.mark.parametrize(
    ("last", "now", "events"),
    [
        ("running", "watchdog", ["LIBVIRT_CONNECTED", "WATCHDOG"]),
        ("paused", "guest-panicked", ["LIBVIRT_CONNECTED", "GUEST_PANICKED"]),
        ("watchdog", "watchdog", ["LIBVIRT_CONNECTED"]),
        ("running", "paused", ["LIBVIRT_CONNECTED"]),
    ],
)
def test_what_occurred_while_the_daemon_was_away(monkeypatch, last, now, events):
    """Also if the VM was paused for a moment when it was asked last."""
    channel = LibvirtChannel.__new__(LibvirtChannel)
    QmpChannel.__init__(channel, "vm")

    def close():
        channel._status = now  # Another thread asks meanwhile.

    channel._connection, channel._status = SimpleNamespace(close=close), last
    monkeypatch.setattr(channel, "_open", lambda: (None, None))
    monkeypatch.setattr(channel, "execute", lambda _: {"status": now})
    channel._come_back()
    seen = [event["event"] for event in iter(channel.event, None)]
    assert seen == events
