# SPDX-License-Identifier: GPL-2.0-or-later
"""A watch is asked while it runs; what it knows of a VM outlives a worker."""

import json
import os
import signal
import socket
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kmemdump.cli.shared.watch_lines import vm_is_ill, watch_lines
from kmemdump.coreimage import read_core, verify
from kmemdump.errors import FormatError, TargetError
from kmemdump.watch import Event, EventName
from kmemdump.watch.control.client import ask, control_path, find_watch, watches
from kmemdump.watch.control.metrics import metrics
from kmemdump.watch.control.pending import PendingRequests
from kmemdump.watch.control.server import ControlServer, Request
from kmemdump.watch.control.status import VmRecord, WatchStatus, read_watches
from kmemdump.watch.vm_status import VmStatus
from rigs.programs import run_kmemdump
from rigs.schema import check_event, validator
from rigs.watching import Watch

START = datetime(2026, 11, 28, 12, tzinfo=UTC)


def event(name, **fields):
    return Event(event=name, vm="db", text=name.value, time=START, **fields)


def record(status, **more):
    fields = {"pid": 7, "memory": 100 << 20, "cpu_seconds": 1.5, **more}
    return VmRecord(**status.record(), **fields)


@pytest.fixture
def server(tmp_path):
    """A control socket whose watch answers with what it was asked."""
    server = ControlServer(control_path(tmp_path, os.getpid()))
    ending = threading.Event()

    def serve():
        while not ending.wait(0.01):
            for request in server.take():
                if request.body.get("do") == "refuse":
                    request.refuse("no")
                else:
                    request.reply(**request.body)

    thread = threading.Thread(target=serve)
    thread.start()
    yield control_path(tmp_path, os.getpid())
    ending.set()
    thread.join()
    server.close()
    assert not list(tmp_path.iterdir())


def test_a_request_and_its_answer(server):
    assert ask(server, do="this", vm="x\n") == {"do": "this", "vm": "x\n"}
    with pytest.raises(TargetError, match=r": no$"):
        ask(server, do="refuse")
    assert server.stat().st_mode & 0o777 == 0o600
    assert list(watches(server.parent)) == [server]


@pytest.mark.parametrize(
    "sent", [b"\n", b"x\n", b"[]\n", b"[" * 60000 + b"\n", b"{" * (1 << 17)]
)
def test_a_request_that_is_none(server, sent):
    with socket.socket(socket.AF_UNIX) as client, client.makefile("rb") as file:
        client.connect(str(server))
        try:
            client.sendall(sent)
            assert b"expected a line of JSON" in file.readline()
        except (BrokenPipeError, ConnectionResetError):
            assert len(sent) > 1 << 16


def test_a_client_that_goes_away_harms_nobody(server):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(server))
        client.sendall(b'{"do": "this"}\n')
    assert ask(server, do="that") == {"do": "that"}


def test_a_watch_that_has_died(tmp_path):
    """Its socket is still there, and is removed."""
    path = control_path(tmp_path, 1 << 22)  # More than Linux gives.
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert read_watches(tmp_path) == []
    assert find_watch(tmp_path, "qmp:/x") is None
    assert not path.exists()


def test_an_answer_that_is_none(server):
    with pytest.raises(FormatError, match="not the status of a watch"):
        read_watches(server.parent)


def test_status_is_made_of_events():
    status = VmStatus("db", "qmp:/db", START)
    assert status.state == "found"
    status.take(event(EventName.MARKED, release="6.12", regions=3, size=9))
    status.take(event(EventName.REFRESHED, regions=4, size=8, seconds=0.5))
    assert (status.state, status.release, status.regions) == ("watched", "6.12", 4)
    assert (status.refreshes, status.refresh_seconds) == (1, 0.5)
    assert status.interval == 5.0
    status.take(event(EventName.REFRESHED, seconds=0.5, interval=80.0))
    status.take(event(EventName.MARKED, seconds=0.5))
    assert status.interval == 80.0
    status.take(event(EventName.DEATH, kind="panic", core=Path("/c/1.core")))
    status.take(event(EventName.DEATH, kind="panic", core=Path("/c/2.core")))
    status.take(event(EventName.NO_CORE, kind="hang"))
    assert status.deaths == {"panic": 2}
    assert (status.cores, status.not_written) == (2, 1)
    assert (status.last_core, status.error) == ("/c/2.core", "no-core")
    status.take(event(EventName.WORKER_DIED))
    assert (status.state, status.worker_deaths) == ("not watched", 1)
    # The answer to a request changes nothing that a death would.
    status.take(event(EventName.MARKED))
    status.take(event(EventName.NO_CORE, request=3))
    assert (status.state, status.not_written) == ("watched", 1)


def test_a_request_is_refused_alone():
    """Another one, for the same VM, waits on."""
    pending, first, second = PendingRequests(), Request({}), Request({})
    pending.add(first, "db")
    pending.refuse(pending.add(second, "db"), "cannot do it")
    assert second.wait() == {"error": "cannot do it"}
    pending.answer(event(EventName.REFRESHED, request=1))
    assert first.wait()["event"] == "refreshed"


def test_events_are_as_the_schema_says():
    """All fields, and all names."""
    schema = validator("watch/event.schema.json").schema
    assert set(schema["properties"]["event"]["enum"]) == {
        name.value for name in EventName
    }
    full = event(
        EventName.DEATH,
        release="6.12",
        kind="panic",
        cause="x",
        signature="s",
        signature_version=2,
        signature_source="log",
        core=Path("/c/1.core"),
        size=1,
        seconds=0.5,
        interval=40.0,
        complete=True,
        regions=2,
        samples=3,
        request=4,
    )
    check_event(full.record())
    assert set(full.record()) == set(schema["properties"])
    assert json.loads(json.dumps(full.record())) == full.record()


def test_a_vm_whose_looks_are_dear_is_looked_at_less_often():
    """It is late by its own interval."""
    status = VmStatus("db", "qmp:/db", START)
    status.take(event(EventName.REFRESHED, interval=80.0))
    vm, marked = record(status), START.timestamp()
    assert not vm_is_ill(vm, marked + 219)
    assert vm_is_ill(vm, marked + 221)
    watch = WatchStatus(1, 0.0, "/c", [vm])
    assert ", every 1 min 20 s" in "".join(watch_lines(watch, marked))


def test_metrics():
    status = VmStatus('d"b\n', "qmp:/db", START)
    status.take(event(EventName.MARKED, size=5))
    status.take(event(EventName.DEATH, kind="hang"))
    page = metrics([WatchStatus(1, 0.0, "/c", [record(status)])])
    assert '\nkmemdump_vm_deaths_total{vm="d\\"b\\n",kind="hang"} 1\n' in page
    assert '\nkmemdump_vm_marked_bytes{vm="d\\"b\\n"} 5\n' in page
    assert f'seconds{{vm="d\\"b\\n"}} {START.timestamp():.0f}\n' in page
    named = [line.split()[2] for line in page.splitlines() if line[:6] == "# TYPE"]
    assert len(named) == len(set(named)) > 8


@pytest.mark.vm
def test_asked_while_it_watches(booted, tmp_path, monkeypatch):
    """Status, a core image on request, and a worker that is killed."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    machine = booted("6.12")
    target = f"qmp:{machine.qmp}"
    watch = Watch(tmp_path / "cores", machine.qmp, until_dead=False)
    try:
        watch.wait_for("marked .* regions")
        core = tmp_path / "wanted.core"
        refused = run_kmemdump("capture", target, "-o", core, "--pause")
        assert refused.returncode == 2
        assert "'kmemdump watch' watches it" in refused.stderr
        done = run_kmemdump("capture", target, "-o", core)
        assert done.returncode == 0, done.stderr
        with closing(read_core(core)) as image:
            assert verify(image) == []

        said = run_kmemdump("status", "--json")
        assert said.returncode == 0, said.stdout
        (watching,) = json.loads(said.stdout)["watches"]
        (vm,) = watching["vms"]
        assert (vm["state"], vm["address"]) == ("watched", target)
        assert (vm["last_core"], vm["worker_deaths"]) == (str(core), 0)
        assert vm["memory"] > 10 << 20
        assert "kmemdump_vm_watched{" in run_kmemdump("status", "--metrics").stdout

        assert run_kmemdump("status", "--refresh").returncode == 0
        lines = len(watch.lines)
        os.kill(vm["pid"], signal.SIGKILL)
        watch.wait_for(r"its process died \(ended by SIGKILL: maybe for", after=lines)
        watch.wait_for("marked .* regions", after=lines)
        lines = run_kmemdump("status").stdout
        assert "worker  died 1 times" in lines
        assert "1 core images" not in lines  # None of a death.
        watch.process.send_signal(signal.SIGTERM)
        assert watch.end() == 0
        assert run_kmemdump("status").returncode == 3
        for found in watch.events:
            check_event(found)
    finally:
        watch.kill()


def test_requests_that_a_worker_does_not_answer_are_counted():
    pending = PendingRequests()
    numbers = [pending.add(Request({}), "db") for _ in range(3)]
    pending.add(Request({}), "web")
    assert (pending.count("db"), pending.count("none")) == (3, 0)
    pending.refuse(numbers[0], "no")
    assert pending.count("db") == 2
