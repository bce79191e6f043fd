# SPDX-License-Identifier: GPL-2.0-or-later
"""The QMP connection, with servers that behave and servers that do not."""

import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from kmemdump.errors import TargetError
from kmemdump.targets.qmp_client import QmpClient, QmpCommandError
from rigs.fake_qemu import GONE, HANG, FakeQemu, Refusal


@pytest.fixture
def qemu(tmp_path):
    server = FakeQemu(tmp_path / "qmp")
    yield server
    server.close()


def test_commands(qemu):
    with QmpClient(qemu.path) as client:
        assert client.connected
        assert client.peer == os.getpid()
        assert client.execute("query-target") == {"arch": "x86_64"}
        assert client.command_line("gpa2hva 0x10").endswith(f"{qemu.address + 16:x}\n")
        qemu.answers["stop"] = Refusal("not now")
        with pytest.raises(QmpCommandError, match="stop: QEMU says: not now"):
            client.execute("stop")
        assert client.execute("cont") == {}
    assert not client.connected
    with pytest.raises(TargetError, match="the connection is closed"):
        client.execute("cont")
    client.close()


def test_connected_socket(qemu):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(qemu.path))
    with QmpClient(connection) as client:
        assert client.status() == "running"
        with pytest.raises(QmpCommandError, match="the monitor of QEMU: no-such: QEMU"):
            client.execute("no-such")
    assert connection.fileno() < 0


def test_an_event_before_the_first_answer(qemu):
    def accept(_arguments):
        qemu.send({"event": "RESET"})
        return {}

    qemu.answers["qmp_capabilities"] = accept
    with QmpClient(qemu.path) as client:
        assert client.status() == "running"
        assert client.event() == {"event": "RESET"}


def test_a_server_that_refuses_the_first_command(qemu):
    qemu.answers["qmp_capabilities"] = Refusal("not you")
    with pytest.raises(QmpCommandError, match="qmp_capabilities: QEMU says: not you"):
        QmpClient(qemu.path)


def test_default_deadline(qemu):
    with QmpClient(qemu.path, 2.5) as client:  # Which counts for the greeting, too.
        qemu.answers["stop"] = HANG
        with pytest.raises(TargetError, match=r"stop: no answer from QEMU in 2\.5 s"):
            client.execute("stop")


def test_events_arrive_while_no_answer_is_awaited(qemu):
    with QmpClient(qemu.path) as client:
        assert client.event() is None
        assert client.event(0.01) is None
        for i in range(5000):
            qemu.send({"event": "STOP", "data": {"i": i}, "timestamp": {}})
        client.execute("cont")
        first = client.event(1)
        assert first is not None
        assert first["data"] == {"i": 5000 - 4096}  # The oldest are lost.
        threading.Timer(0.2, qemu.send, [{"event": "SHUTDOWN"}]).start()
        event = first
        while event["event"] != "SHUTDOWN":
            event = client.event(60)
            assert event is not None


def test_answer_that_never_comes(qemu):
    with QmpClient(qemu.path) as client:
        qemu.answers["stop"] = HANG
        with pytest.raises(TargetError, match=r"stop: no answer from QEMU in 0\.3 s"):
            client.execute("stop", timeout=0.3)
        assert client.execute("cont") == {}


def test_vm_that_goes_away(qemu):
    with QmpClient(qemu.path) as client:
        qemu.answers["stop"] = GONE
        with pytest.raises(TargetError, match="stop: the VM went away"):
            client.execute("stop")
        with pytest.raises(TargetError, match="cont: the VM went away"):
            client.execute("cont")
        assert not client.connected


@pytest.mark.parametrize(
    ("greeting", "problem"),
    [
        (b"", "the greeting: no answer"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak QMP"),
        (b'{"QMP": 5}\n', "does not speak QMP"),
        (b"[1, 2]\n", "does not speak QMP"),
        (b"\xff" * 100 + b"\n", "does not speak QMP"),
        (b'{"QMP": {}}\n', "does not speak QMP"),
        (b"{" * 100000 + b"\n", "does not speak QMP"),
        (b"x" * (11 << 20), "does not speak QMP"),
    ],
    ids=lambda item: str(item)[:30],
)
def test_foreign_server(qemu, greeting, problem):
    qemu.greeting = greeting
    with pytest.raises(TargetError, match=problem):
        QmpClient(qemu.path, timeout=60 if greeting else 1)


def test_server_that_closes_at_once(qemu):
    qemu.greeting = b""
    qemu.closes = True
    with pytest.raises(TargetError, match="closed before a greeting"):
        QmpClient(qemu.path, timeout=60)


def test_garbage_later(qemu):
    with QmpClient(qemu.path) as client:
        qemu._client.sendall(b"garbage\n")
        deadline = time.monotonic() + 60
        while client.connected and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(TargetError, match="cont: the VM went away"):
            client.execute("cont")


def test_no_server(tmp_path):
    with pytest.raises(TargetError, match="cannot connect: No such file"):
        QmpClient(tmp_path / "nothing")
    with pytest.raises(TargetError, match="cannot connect: No such file"):
        QmpClient(tmp_path / "no folder" / "nothing")
    (tmp_path / "file").touch()
    with pytest.raises(TargetError, match="cannot connect: Connection refused"):
        QmpClient(tmp_path / "file")


def test_server_that_does_not_accept(tmp_path):
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "qmp"))
    server.listen(0)
    with pytest.raises(TargetError, match="is another one connected"):
        QmpClient(tmp_path / "qmp", timeout=0.3)
    # The connection that was given up still waits there, and there is one place.
    with pytest.raises(TargetError, match="does not accept connections"):
        QmpClient(tmp_path / "qmp", timeout=0.3)
    server.close()


def test_path_too_long_for_a_socket_address(tmp_path, monkeypatch):
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    monkeypatch.chdir(folder)
    server = FakeQemu(folder.relative_to(folder) / "qmp")
    with QmpClient(folder / "qmp") as client:
        assert client.execute("cont") == {}
    server.close()


def test_file_descriptor_is_sent(qemu, tmp_path):
    with QmpClient(qemu.path) as client, (tmp_path / "f").open("wb") as file:
        client.send_fd(file.fileno(), "name")
        assert os.path.samestat(os.fstat(qemu.fd), os.fstat(file.fileno()))


def test_exit_without_close_is_silent(qemu):
    code = (
        "import sys; from pathlib import Path\n"
        "from kmemdump.targets.qmp_client import QmpClient\n"
        "client = QmpClient(Path(sys.argv[1])); print(client.execute('cont'))"
    )
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", code, str(qemu.path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("{}\n", "")
