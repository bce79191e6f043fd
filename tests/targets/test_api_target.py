# SPDX-License-Identifier: GPL-2.0-or-later
"""The API of Cloud Hypervisor and Firecracker, simulated by their definitions."""

import os
import secrets
import struct
from pathlib import Path

import pytest

from kmemdump.errors import FormatError, TargetError
from kmemdump.opening import open_target
from kmemdump.targets.qmp_channel import QmpCommandError
from kmemdump.targets.vm import VmTarget
from rigs.guest_process import GuestProcess, Part
from rigs.writers.kernel_memory import SyntheticKernel
from rigs.writers.kvm_state import write_cloud_hypervisor, write_firecracker

pytestmark = pytest.mark.slow

WRITERS = {"ch": write_cloud_hypervisor, "firecracker": write_firecracker}
PATIENCE = 60


@pytest.fixture
def monitor(tmp_path):
    started = []

    def start(api: str, state: bytes) -> GuestProcess:
        part = Part(bytes(SyntheticKernel().memory), shared=True)
        started.append(GuestProcess(tmp_path, part, api=api, state=state))
        return started[-1]

    yield start
    for item in started:
        item.end()


@pytest.fixture
def exchanges(monkeypatch):
    """The folders that were made for the monitor to write into."""
    made = []
    token_hex = secrets.token_hex

    def make(size: int) -> str:
        made.append(Path("/tmp", f"kmemdump-{token_hex(size)}"))
        return made[-1].name.removeprefix("kmemdump-")

    monkeypatch.setattr(secrets, "token_hex", make)
    return made


@pytest.mark.parametrize("kind", WRITERS)
def test_paused_for_its_registers(monitor, kind, exchanges):
    process = monitor(kind, WRITERS[kind](3))
    with open_target(f"{kind}:{process.socket}") as target:
        assert isinstance(target, VmTarget)
        assert target.name == f"{kind}:{process.socket}"
        assert target.vmcoreinfo().osrelease
        assert target.status() == "running"
        assert target.registers() == []  # It is not paused for that.
        target.stop()
        assert target.status() == "paused"
        statuses = target.registers()
        assert len(statuses) == 3
        for number, status in enumerate(statuses):
            values = struct.unpack("<27Q", status[112:328])
            assert values[16] == 0xFFFFFFFF81000000 + number  # rip
            assert values[17:19] == (0x10, 0x246)
            assert values[22] == 0xFFFF888000000000 + number  # gs_base
        target.cont()
        assert target.status() == "running"
        with pytest.raises(QmpCommandError, match=r"refused \((400|500)\)"):
            target.cont()
    assert exchanges
    assert not any(folder.exists() for folder in exchanges)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_state_that_is_not_understood(monitor, kind, caplog):
    process = monitor(kind, b"something else")
    with open_target(f"{kind}:{process.socket}") as target:
        target.stop()
        assert target.registers() == []
        assert "no registers" in caplog.text


def test_what_an_api_lacks(monitor):
    process = monitor("firecracker", b"")
    with (
        open_target(f"firecracker:{process.socket}") as target,
        pytest.raises(QmpCommandError, match="cannot be asked for it"),
    ):
        target.client.execute("system_reset")


def test_cloud_hypervisor_is_ended(monitor):
    process = monitor("ch", b"")
    with open_target(f"ch:{process.socket}") as target:
        with pytest.raises(TargetError):  # It ends before it answers.
            target.client.execute("quit")
        assert target.client.event(PATIENCE) is None
        assert not target.client.connected
        with pytest.raises(TargetError):
            target.status()


def test_nobody_listens(tmp_path):
    with pytest.raises(TargetError, match="cannot connect: No such file"):
        open_target(f"ch:{tmp_path / 'none'}")


def test_another_ones_file_is_not_read(monitor, tmp_path):
    """Where the state should be is a link, or a FIFO."""
    process = monitor("firecracker", write_firecracker(1))
    with open_target(f"firecracker:{process.socket}") as target:
        target.stop()
        real = target.client.api.request

        def request(method, path, body=None, timeout=None):
            if path == "/snapshot/create":
                os.symlink("/etc/passwd", body["snapshot_path"])
                return None
            return real(method, path, body, timeout)

        target.client.api.request = request
        assert target.registers() == []


def test_parsers_refuse_each_others_files():
    from kmemdump.formats import cloud_hypervisor_state, firecracker_state

    with pytest.raises(FormatError):
        firecracker_state.parse_state(write_cloud_hypervisor(1), "x")
    with pytest.raises(FormatError):
        cloud_hypervisor_state.parse_state(write_firecracker(1), "x")
