# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM that is paused for a moment goes on, whatever it does in that moment."""

import socket
import subprocess
from collections import Counter
from contextlib import suppress

import pytest

from kmemdump.errors import FormatError
from kmemdump.targets.qmp import QmpTarget
from kmemdump.targets.qmp_client import QmpClient
from kmemdump.targets.vm import paused
from kmemdump.watch.reporter import Reporter
from kmemdump.watch.vm_control import VmControl

pytestmark = pytest.mark.vm

MANY = 5000
RESET = bytes.fromhex("b0fe e664 ebfe")  # mov $0xfe,%al; out %al,$0x64; jmp .


@pytest.fixture
def resetting(tmp_path):
    """A VM of libvirt's kind, whose firmware resets it at once, again and again."""
    firmware = tmp_path / "firmware"
    firmware.write_bytes(RESET.rjust(0x10000 - 16 + len(RESET), b"\0").ljust(0x10000))
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [
                *("qemu-system-x86_64", "-accel", "tcg", "-machine", "q35"),
                *("-m", "512", "-bios", firmware, "-nodefaults", "-display", "none"),
                *("-chardev", f"socket,id=charmonitor,fd={theirs.fileno()}"),
                *("-mon", "chardev=charmonitor,mode=control"),
            ],
            pass_fds=[theirs.fileno()],
        )
    with process:
        try:
            with QmpTarget(QmpClient(ours, 60)) as target:
                yield target
        finally:
            process.kill()


def test_a_vm_that_migrates_is_not_paused_for_a_moment(resetting, tmp_path):
    """libvirt lets no VM run before its migration has ended: it would arrive paused."""
    control = VmControl(resetting, Reporter("vm", lambda event: None, lambda: False))
    client = resetting.client
    with socket.socket(socket.AF_UNIX) as never_read:  # The migration does not end.
        never_read.bind(str(tmp_path / "target"))
        never_read.listen()
        client.execute("migrate", {"uri": f"unix:{tmp_path}/target"})
        check_while_it_migrates(resetting, control)
        client.execute("migrate_cancel")
        while client.migrates():
            assert resetting.status() == "running"
    with control.paused():
        assert resetting.status() in ("paused", "prelaunch")


def check_while_it_migrates(resetting, control):
    client = resetting.client
    assert client.migrates()
    while client.event():
        pass
    with control.paused():
        assert resetting.status() == "running"
    with suppress(FormatError):
        resetting.registers()
    while event := client.event():
        assert event["event"] != "STOP"


def test_a_guest_that_resets_itself_in_this_moment(resetting):
    """QEMU has then another name for the state of the VM."""
    seen = Counter()
    while seen["prelaunch"] < 5:
        with paused(resetting):
            seen[resetting.status()] += 1
        assert resetting.status() == "running", seen
        with suppress(FormatError):  # It is never in 64-bit mode.
            resetting.registers()
        assert resetting.status() == "running", seen
        assert seen.total() < MANY, seen
    assert seen.keys() <= {"paused", "prelaunch"}
