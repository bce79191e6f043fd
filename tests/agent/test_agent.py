# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent without a machine: its loop, its lock, its status, what systemd is told."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import datetime

import pytest

from kmemdump.agent import status as status_file
from kmemdump.agent.agent import Agent, held_signals
from kmemdump.agent.status import Cost, Status, read_all
from kmemdump.agent.systemd import notify
from kmemdump.cli import main
from kmemdump.cli.shared.agent_output import AgentOutput, JsonAgentOutput
from kmemdump.errors import FormatError, TargetError, UnsupportedError
from kmemdump.marking.lock import lock_holder, lock_table
from kmemdump.marking.plan import Plan
from kmemdump.marking.registration import RefreshResult

MARKED = RefreshResult(Plan(201, (), (), 0), 0, 0, (), None, 0.5)
STATUS = Status(
    target="live",
    table="live-minidump-30000000",
    pid=77,
    kernel="6.12.117",
    started=1000.0,
    marked=1100.0,
    interval=300.0,
    regions=199,
    bytes=18_000_000,
    refreshes=3,
    failures=1,
    failure="",
    problems=(),
    cost=Cost(100 << 20, 110 << 20, 2.5, 0.3, 0.001),
)


class Registration:
    """What the loop needs of one; each look ends as is wished."""

    def __init__(self, *endings):
        self.last = MARKED
        self.target_name, self.table = "live", "table"
        self.kernel = "6.12.117"
        self.gone = False
        self.endings = list(endings)

    def check(self):
        if self.gone:
            raise TargetError("live: the kernel that was marked is gone")

    def refresh(self):
        ending = self.endings.pop(0)
        if isinstance(ending, Exception):
            raise ending
        self.last = ending
        return ending


def run_agent(folder, registration, *signals, refresh=None):
    """Run an agent that finds *signals* waiting, of which it takes the lowest first."""
    told, intervals = [], []

    def report(result, interval):
        told.append(result)
        intervals.append(interval)

    with held_signals():
        agent = Agent(registration, refresh, report, folder)
        for number in signals:
            signal.raise_signal(number)  # For this thread: there are others.
        agent.run()
        (status,) = read_all(folder)
    assert intervals[-1] == status.interval
    assert told.pop(0) == MARKED  # The look that the registration began with.
    return told, status


@pytest.mark.parametrize("ask", [signal.SIGUSR1, signal.SIGHUP])
def test_refreshes_when_asked(tmp_path, ask):
    told, status = run_agent(tmp_path, Registration(MARKED), ask, signal.SIGTERM)
    assert told == [MARKED]
    assert (status.refreshes, status.failures) == (1, 0)


def test_refreshes_on_the_timer(tmp_path):
    class Ending(Registration):
        def refresh(self):
            if len(self.endings) == 1:
                signal.raise_signal(signal.SIGINT)
            return super().refresh()

    told, _ = run_agent(tmp_path, Ending(MARKED, MARKED, MARKED), refresh=0.01)
    assert told == [MARKED] * 3


def test_looks_take_one_percent_of_a_cpu_at_most(tmp_path, monkeypatch):
    class Busy(Registration):
        def refresh(self):
            end = time.process_time() + 0.05
            while time.process_time() < end:
                pass
            return super().refresh()

    monkeypatch.setattr("kmemdump.agent.agent.INTERVAL", 1.0)
    signals = signal.SIGUSR1, signal.SIGTERM
    _, status = run_agent(tmp_path, Busy(MARKED), *signals)
    assert 5 <= status.interval < 50
    # Of the time until the next look, which is a hundred times as long.
    assert 0.005 < status.cost.share < 0.02
    _, status = run_agent(tmp_path, Registration(MARKED), *signals)
    assert status.interval < 5
    _, status = run_agent(tmp_path, Busy(MARKED), *signals, refresh=60.0)
    assert status.interval == 60


def test_an_agent_that_has_just_begun_costs_nothing_yet(tmp_path):
    _, status = run_agent(tmp_path, Registration(), signal.SIGTERM)
    assert status.cost.share < 0.001


@pytest.mark.parametrize("error", [TargetError("torn"), RecursionError(), OSError(5)])
def test_survives_a_look_that_fails(tmp_path, error):
    registration = Registration(error, MARKED)
    told, status = run_agent(tmp_path, registration, signal.SIGUSR1, signal.SIGTERM)
    assert told == [error]
    assert (status.refreshes, status.failures) == (1, 1)
    assert status.failure
    told, status = run_agent(tmp_path, registration, signal.SIGUSR1, signal.SIGTERM)
    assert (status.failures, status.failure) == (0, "")


def test_ends_when_the_kernel_is_another_one(tmp_path):
    registration = Registration()
    registration.gone = True
    with pytest.raises(TargetError, match="is gone"):
        run_agent(tmp_path, registration, signal.SIGUSR1)


HOLDER = """
import sys, time; from pathlib import Path
from kmemdump.marking.lock import lock_table
with lock_table(Path(sys.argv[1]), "table"):
    print("held", flush=True)
    time.sleep(1000)
"""


def test_one_agent_for_a_table(tmp_path):
    argv = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(UnsupportedError, match=rf"process {holder.pid} already"),
            lock_table(tmp_path, "table"),
        ):
            pass
        # What one that died has left is not the word of the one that looks now.
        status_file.write(tmp_path, "table", STATUS)
        assert [item.alive for item in read_all(tmp_path)] == [False]
        status_file.write(tmp_path, "table", replace(STATUS, pid=holder.pid))
        assert [item.alive for item in read_all(tmp_path)] == [True]
        with lock_table(tmp_path, "another"):
            pass
        holder.kill()
    # The kernel has released it.
    assert [item.alive for item in read_all(tmp_path)] == [False]
    with lock_table(tmp_path, "table"):
        pass


def test_no_place_for_the_lock(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TargetError, match="File exists"):  # noqa: SIM117
        with lock_table(tmp_path / "file", "table"):
            pass


def test_status_is_what_was_written(tmp_path):
    assert read_all(tmp_path) == []
    status_file.write(tmp_path, "a", STATUS)
    status_file.write(tmp_path, "a", replace(STATUS, problems=("area x is left out",)))
    (found,) = read_all(tmp_path)
    assert found == replace(STATUS, problems=["area x is left out"], alive=False)
    status_file.remove(tmp_path, "a")
    assert read_all(tmp_path) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2}', "\0"])
def test_status_that_is_none(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(FormatError, match=r"a\.json: not the status of an agent"):
        read_all(tmp_path)


def test_verb_status(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    assert main(["status"]) == 3
    assert "'kmemdump mark live --daemon' start one" in capsys.readouterr().err
    status_file.write(tmp_path, "table", STATUS)
    assert main(["status"]) == 1
    out = capsys.readouterr().out
    assert "process 77 is gone; what it registered is still there" in out
    status_file.write(tmp_path, "table", replace(STATUS, pid=os.getpid()))
    with lock_table(tmp_path, "table"):
        assert main(["status"]) == 1  # It looked for the last time in 1970.
        out = capsys.readouterr().out
        assert "199 regions, 18.0 MB" in out
        assert "104.9 MB of memory (at most 115.3 MB), 0.10% of one CPU" in out
        assert main(["status", "--json"]) == 1
        answer = json.loads(capsys.readouterr().out)
        assert (answer["version"], answer["watches"]) == (2, [])
        (record,) = answer["agents"]
        assert record["version"] == 1
        assert record["cost"]["each_look"] == 0.3


LACKS = replace(MARKED, problem="no room for the description")


def test_output_for_people(capsys):
    output = AgentOutput({}, "live")
    for result in (LACKS, LACKS, TargetError("torn")):
        output.print_look(result)
    output.print_line("stopped")
    out, err = capsys.readouterr()
    assert out.splitlines() == [LACKS.summary, LACKS.summary, "live: stopped"]
    assert err.splitlines() == [  # What is known is not said again.
        "kmemdump: no room for the description",
        "kmemdump: not refreshed, what is registered stays: torn",
    ]


def test_output_for_the_journal(capsys):
    output = AgentOutput({"JOURNAL_STREAM": "8:1"}, "live")
    output.print_line("stopped")
    output.warn("two\nlines")
    assert capsys.readouterr() == ("<6>live: stopped\n<4>two; lines\n", "")


def test_output_for_programs(capsys):
    # As systemd starts it: a priority before an object would be no JSON.
    output = JsonAgentOutput({"JOURNAL_STREAM": "8:1"}, "live", lines=True)
    for result in (LACKS, LACKS, TargetError("torn")):
        output.print_look(result)
    output.print_line("stopped")
    out, err = capsys.readouterr()
    told = [json.loads(line) for line in out.splitlines()]
    assert err == ""
    assert all((it["version"], it["target"]) == (1, "live") for it in told)
    times = [datetime.fromisoformat(it["time"]) for it in told]
    assert times == sorted(times)
    for look in told[:2]:
        assert look["rows"] == 201
        assert look["problems"] == ["no room for the description"]
    assert told[2]["problem"].endswith(": torn")
    assert told[3]["text"] == "stopped"


def test_systemd_is_notified(tmp_path):
    place = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(place)
        notify({"NOTIFY_SOCKET": place}, READY="1", STATUS="two\nlines")
        assert manager.recv(1000) == b"READY=1\nSTATUS=two lines"
    notify({"NOTIFY_SOCKET": place}, READY="1")  # Nobody is there any more.
    notify({}, READY="1")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("interval = 5", "--interval needs --daemon"),
        ("daemon = true\noff = true", "exclude each other"),
        ("nosuch = 1", "no option 'nosuch'; there are"),
        ("area = 'kmsg'", "area is 'kmsg', expected a list"),
        ("area = ['nosuch']", "no area 'nosuch'"),
        ("daemon = 1", "daemon is 1, expected true or false"),
        ("interval = 'often'", "line 1: interval is 'often', expected seconds"),
        ("what?", "Expected '=' after a key"),
        (None, "No such file"),
    ],
)
def test_configuration(tmp_path, capsys, text, problem):
    path = tmp_path / "mark.toml"
    if text is not None:
        path.write_text(text)
    assert main(["mark", "nosuch", "--config", str(path)]) == 2
    assert problem in capsys.readouterr().err


def test_command_line_counts_more_than_the_configuration(tmp_path, capsys):
    path = tmp_path / "mark.toml"
    path.write_text("area = ['nosuch']\nno-encryption = true\n")
    # So it comes as far as opening the target.
    assert main(["mark", "nosuch", "--config", str(path), "--area", "kmsg"]) == 3
    assert "nosuch: No such file" in capsys.readouterr().err


def test_others_cannot_lock_a_table(tmp_path):
    (tmp_path / "table.lock").touch(0o644)  # As an earlier version left it.
    with lock_table(tmp_path, "table"):
        assert (tmp_path / "table.lock").stat().st_mode & 0o777 == 0o600


def test_who_asks_for_a_lock_does_not_take_it(tmp_path):
    """``kmemdump status`` runs while an agent starts."""
    with lock_table(tmp_path, "table"):
        pass
    ended = threading.Event()

    def ask():
        while not ended.is_set():
            lock_holder(tmp_path, "table")

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for _ in range(2000):
            with lock_table(tmp_path, "table"):
                assert lock_holder(tmp_path, "table") == os.getpid()
    finally:
        ended.set()
        thread.join()
