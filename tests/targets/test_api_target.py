# SPDX-License-Identifier: GPL-2.0-or-later
"""The API of Cloud Hypervisor and Firecracker, simulated by their definitions."""

import json
import os
import secrets
import socket
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from kmemdump import run_bounded
from kmemdump.bounds import steps
from kmemdump.bounds.steps import step
from kmemdump.errors import BudgetExceededError, FormatError, TargetError
from kmemdump.formats import cloud_hypervisor_state, firecracker_state
from kmemdump.opening import open_target
from kmemdump.targets.api_socket import ApiSocket
from kmemdump.targets.qmp_channel import QmpCommandError, QmpTimeoutError
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
    with pytest.raises(FormatError):
        firecracker_state.parse_state(write_cloud_hypervisor(1), "x")
    with pytest.raises(FormatError):
        cloud_hypervisor_state.parse_state(write_firecracker(1), "x")


def put_a_question_that_hangs(spec: str) -> str:
    """Pause the VM as ``capture --pause`` does."""
    steps._MARGIN = 0
    with open_target(spec) as target:
        assert target.status() == "running"
        target.stop()
        try:
            with step("bomb", 1.0, 1.0):
                time.sleep(600)
        except BudgetExceededError:
            return "left out"
        finally:
            target.cont()
    return "done"


@pytest.mark.parametrize("kind", WRITERS)
def test_a_vm_goes_on_if_who_paused_it_is_ended(monitor, kind):
    process = monitor(kind, b"")
    spec = f"{kind}:{process.socket}"
    assert run_bounded(put_a_question_that_hangs, spec) == "left out"
    with open_target(spec) as target:
        assert target.status() == "running"


def test_an_answer_that_never_ends(tmp_path):
    """The monitor closes the connection, and sends a byte now and then."""
    path = tmp_path / "socket"
    ended = threading.Event()

    def serve():
        for _ in range(2):
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                if connection.recv(4096):
                    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
                    while not ended.wait(0.1):
                        connection.sendall(b" ")

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(2)
        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(QmpTimeoutError, match="no answer in"):
            ApiSocket(path, 1.0).request("GET", "/")
        ended.set()
        thread.join()


def test_a_state_with_half_a_surrogate_pair():
    state = {"snapshot_data": "\ud800"}
    cpus = {"cpu-manager": {"snapshots": {"0": state}}}
    with pytest.raises(FormatError, match="no registers of KVM"):
        cloud_hypervisor_state.parse_state(
            json.dumps({"snapshots": cpus}).encode(), "x"
        )
