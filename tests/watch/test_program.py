# SPDX-License-Identifier: GPL-2.0-or-later
"""The operator's program, run for each death."""

import os
import signal
import stat
import time
from datetime import datetime
from pathlib import Path

import pytest

from kmemdump.errors import UsageError
from kmemdump.watch import program as module
from kmemdump.watch.events import Event, EventName
from kmemdump.watch.program import ProgramRunner, find_program

PATIENCE = 60


@pytest.fixture
def program(tmp_path):
    """``program(text)`` is a shell script."""

    def write(text: str) -> str:
        path = tmp_path / "program"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    return write


@pytest.fixture
def runner(program):
    """``runner(text, seconds)`` runs such a script; it is closed after the test."""
    runners = []

    def start(text: str, seconds: float = PATIENCE, **environ: str) -> ProgramRunner:
        path = {"PATH": os.environ["PATH"]}
        runners.append(ProgramRunner(program(text), seconds, path | environ))
        return runners[-1]

    yield start
    for item in runners:
        item.close(0)


def died(vm: str = "web1", **more) -> Event:
    text = more.pop("text", "panic")
    return Event(event=EventName.DEATH, vm=vm, kind="panic", text=text, **more)


def wait_for(found):
    """Return the first value of ``found()`` that is true."""
    deadline = time.monotonic() + PATIENCE
    while not (value := found()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


def written(path: Path) -> str:
    """Return what is in a file that was moved there, once it is."""
    return wait_for(lambda: path.exists() and path.read_text())


def test_environment(runner, tmp_path):
    out = tmp_path / "out"
    it = runner(
        f'env >"{out}.new"; echo "$# $(readlink /proc/self/fd/0)" >>"{out}.new"; '
        f'mv "{out}.new" "{out}"',
        NOTIFY_SOCKET="/run/systemd/notify",
        KMEMDUMP_SIGNATURE="of another",
        HOOK_URL="https://example.org",
    )
    it.take(
        died(
            text="x" * 10_000,
            cause="panic: $(touch evil)\n\x1b[31m`touch evil`\x00\udcff é",
            core=Path("cores/we b1.core"),
            size=7_200_000,
            seconds=0.25,
            complete=True,
        )
    )
    text = written(out)
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    assert values["KMEMDUMP_EVENT"] == "death"
    assert values["KMEMDUMP_VM"] == "web1"
    assert values["KMEMDUMP_KIND"] == "panic"
    assert datetime.fromisoformat(values["KMEMDUMP_TIME"]).tzinfo is not None
    assert values["KMEMDUMP_CAUSE"] == (
        "panic: $(touch evil)\\n\\x1b[31m`touch evil`\\x00\\udcff é"
    )
    assert values["KMEMDUMP_CORE"] == str(Path("cores/we b1.core").absolute())
    assert values["KMEMDUMP_SIZE"] == "7200000"
    assert values["KMEMDUMP_SECONDS"] == "0.250"
    assert values["KMEMDUMP_COMPLETE"] == "1"
    assert len(values["KMEMDUMP_TEXT"]) < 10_000
    assert values["HOOK_URL"] == "https://example.org"
    assert not values.keys() & {"KMEMDUMP_SIGNATURE", "NOTIFY_SOCKET"}
    assert text.splitlines()[-1] == "0 /dev/null"
    it.close(PATIENCE)
    assert it.failures() == []


def test_what_is_a_death(runner, tmp_path):
    """Also one that left no core image, and nothing else."""
    it = runner(f'echo "$KMEMDUMP_EVENT $KMEMDUMP_CORE." >>"{tmp_path}/out"')
    for event in EventName:
        it.take(Event(event=event, vm="web1", text=""))
    it.take(Event(event=EventName.NO_CORE, vm="web1", text="", kind="panic"))
    it.close(PATIENCE)
    assert (tmp_path / "out").read_text() == "no-core .\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [("exit 3", "exit status 3"), ("kill -KILL $$", "ended by SIGKILL")],
)
def test_failure(runner, text, problem):
    it = runner(text)
    it.take(died())
    (failure,) = wait_for(it.failures)
    assert failure.vm == "web1"
    assert failure.text.endswith(f"/program: {problem}")
    assert it.failures() == []


def test_a_program_that_went_away(runner, tmp_path):
    it = runner("")
    (tmp_path / "program").unlink()
    it.take(died())
    (failure,) = wait_for(it.failures)
    assert failure.text.endswith("/program: No such file or directory")


def test_a_program_that_does_not_end(runner, tmp_path, monkeypatch):
    """It ignores SIGTERM, as does its child: the group is killed."""
    out = tmp_path / "pids"
    ends = module._ends

    def ends_after_its_start(process, seconds):
        written(out)  # A busy host takes longer to start it than its time.
        return ends(process, seconds)

    monkeypatch.setattr(module, "_ends", ends_after_its_start)
    it = runner(
        f'trap "" TERM; sleep 1000 & echo "$$ $!" >"{out}.new"; '
        f'mv "{out}.new" "{out}"; wait; while :; do sleep 1; done',
        0.5,
    )
    it.take(died())
    pids = [int(pid) for pid in written(out).split()]
    (failure,) = wait_for(it.failures)
    assert failure.text.endswith("/program: killed after 0.5 s")
    wait_for(lambda: not any(is_running(pid) for pid in pids))


def is_running(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


def test_programs_that_hang_delay_nobody(runner, tmp_path):
    """The caller; and there is an end of it."""
    it = runner("exec sleep 1000")
    start = time.monotonic()
    for i in range(20):
        it.take(died(f"vm{i}"))
    assert time.monotonic() - start < 5
    it.close(0)
    found = {failure.vm: failure.text for failure in it.failures()}
    assert len(found) == 20
    ends = [text.rpartition(": ")[2] for text in found.values()]
    assert ends.count("ended by SIGKILL") + ends.count("the watch ends") == 20
    assert ends.count("the watch ends") >= 16


def test_close_lets_runs_end(runner, tmp_path):
    it = runner(f'sleep 0.2; echo done >>"{tmp_path}/out"')
    for _ in range(6):
        it.take(died())
    it.close(PATIENCE)
    assert (tmp_path / "out").read_text().count("done") == 6
    assert it.failures() == []


def test_find_program(program, tmp_path):
    path = program("")
    assert find_program(path) == path
    assert find_program("sh").endswith("/sh")
    os.chmod(path, stat.S_IRUSR)
    for name in (path, "/nonexistent/program", str(tmp_path), "no-such-program"):
        with pytest.raises(UsageError, match="is no program that can be run"):
            find_program(name)


def test_signals_reach_it(runner, tmp_path):
    """None is blocked or ignored."""
    out = tmp_path / "out"
    it = runner(f'grep ^Sig /proc/self/status >"{out}.new"; mv "{out}.new" "{out}"')
    it.take(died())
    masks = dict(line.split() for line in written(out).splitlines())
    for name in ("SigBlk:", "SigIgn:"):
        assert int(masks[name], 16) >> (signal.SIGTERM - 1) & 1 == 0
