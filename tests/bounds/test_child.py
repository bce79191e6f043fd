# SPDX-License-Identifier: GPL-2.0-or-later
"""Work on foreign memory goes on in a child, which ends whatever it does."""

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from kmemdump.bounds.steps import Limits

pytestmark = pytest.mark.slow

# Work in C, which no budget and no handler of Python's ends: "forever" stands for what
# drgn does with hostile types.
SCRIPT = """
import os, sys, time
from kmemdump.bounds import child, steps
from kmemdump.bounds.page import Partner
from kmemdump.errors import BudgetExceededError, KmemdumpError

def forever():
    sum(range(1 << 60))

def put(what, work, seconds=1.0):
    page = steps.state()
    try:
        with steps.step(what, seconds, 10 * seconds):
            work()
        print(what, "done", flush=True)
    except BudgetExceededError as error:
        print(what, "left out:", error, flush=True)

def run(work, **limits):
    steps._MARGIN = 0
    try:
        child.go_on_in_child(
            steps.Limits(**limits), lambda held: print("cleaned up", held), print
        )
        work()
    except child.ChildEnded as ended:
        sys.exit(ended.status)
    except KmemdumpError as error:
        print(f"{type(error).__name__}: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("stopped", flush=True)
        sys.exit(130)
    sys.stdout.flush()
    os._exit(7)
"""


def start(work: str) -> subprocess.Popen[str]:
    code = f"{SCRIPT}\n{textwrap.dedent(work)}"
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    )


def run(work: str) -> tuple[int, list[str]]:
    process = start(work)
    out, _ = process.communicate(timeout=600)
    return process.returncode, out.splitlines()


def test_the_childs_end_is_the_end() -> None:
    assert run("run(lambda: print(os.getpid() != os.getppid()))") == (7, ["True"])


def test_what_is_found_is_kept() -> None:
    """The next child leaves out what ended this one, and does all else."""
    status, lines = run(
        """
        def work():
            put("before", lambda: None)
            put("bomb", forever)
            put("after", lambda: None)
        run(work)
        """
    )
    assert status == 7
    assert lines[0] == "before done"
    assert lines[1] == "before done"
    assert lines[2].startswith("bomb left out: took ")
    assert "s of CPU, ended by SIG" in lines[2]
    assert lines[3:] == ["after done"]


def test_many_bombs_cost_a_few_steps() -> None:
    status, lines = run(
        """
        def work():
            for i in range(40):
                put(f"bomb {i}", forever)
        run(work, cpu=30)
        """
    )
    assert status == 7
    last = lines[-40:]
    assert [line.split(":")[0] for line in last] == [
        f"bomb {i} left out" for i in range(40)
    ]
    assert sum("took" in line for line in last) >= 4
    assert "all before took what it may" in last[-1]


def test_work_between_steps_is_limited() -> None:
    status, lines = run("run(forever, cpu=1)")
    assert status == 3
    assert lines[0].startswith("BudgetExceededError: took 1 s of CPU")
    assert lines[1].startswith("raise --max-memory, --max-cpu or --max-time")


def test_waiting_is_limited() -> None:
    status, lines = run("run(lambda: time.sleep(600), seconds=1)")
    assert status == 3
    assert lines[0].startswith("BudgetExceededError: took 0 s of CPU, ended after 1 s")


def test_memory_is_limited() -> None:
    status, lines = run(
        """
        def work():
            try:
                bytearray(1 << 30)
            except MemoryError:
                print("refused")
        run(work, memory=512 << 20)
        """
    )
    assert (status, lines) == (7, ["refused"])


def test_memory_of_a_step_is_limited_besides_what_is_there() -> None:
    """As where drgn shifts by a number of a damaged kernel, in Python."""
    status, lines = run(
        """
        kept = []
        def work():
            kept.append(bytearray(700 << 20))  # Between steps.
            for order in (30, 32):
                put(f"1 << 1 << {order}", lambda: 1 << (1 << order))
            kept.append(bytearray(700 << 20))
        run(work)
        """
    )
    assert status == 7
    assert lines[0] == "1 << 1 << 30 done"
    assert lines[1].startswith("1 << 1 << 32 left out: the question took more memory")


@pytest.mark.parametrize(("memory", "size"), [(1, 320), (2048, 320), (8192, 1280)])
def test_limit_of_a_step_is_raised_with_that_of_all(memory: int, size: int) -> None:
    assert Limits(memory=memory << 20).memory_of_step == size << 20


def test_a_crash_is_no_end() -> None:
    status, lines = run(
        """
        def work():
            put("crash", lambda: os.kill(os.getpid(), 11))
            put("after", lambda: None)
        run(work)
        """
    )
    assert (status, lines) == (
        7,
        ["crash left out: took 0 s of CPU, ended by SIGSEGV", "after done"],
    )


def test_what_it_held_is_let_go() -> None:
    status, lines = run(
        """
        def work():
            steps.hold(True, "qmp:vm")
            forever()
        run(work, cpu=1)
        """
    )
    assert (status, lines[0]) == (3, "cleaned up qmp:vm")


def test_questions_of_a_stream_are_not_put_twice() -> None:
    status, lines = run(
        """
        def work():
            steps.state().partner = Partner.STREAM
            put("bomb", forever)
        run(work)
        """
    )
    assert status == 1
    assert lines[0].startswith("IncompleteAnswerError: took ")
    assert lines[0].endswith("the questions after it are not put")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("work", ["count", "sleep"])
def test_a_signal_ends_it_at_once(number: signal.Signals, work: str) -> None:
    """In C code as in Python; and no process is left."""
    process = start(
        f"""
        if "{work}" == "sleep":
            child._C_PATIENCE = 30  # It notices a signal, if late on a busy host.
        def begin():
            print(os.getpid(), flush=True)
        def sleep():
            try:
                begin()
                time.sleep(600)
            finally:
                print("unwound", flush=True)
        def count():
            begin()
            forever()
        run(lambda: put("bomb", {work}, 600))
        """
    )
    with process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        start_of_end = time.monotonic()
        process.send_signal(number)
        out = process.stdout.read()
        status = process.wait(60)
    assert time.monotonic() - start_of_end < 30  # Of a busy host; 0.6 s of another.
    assert status == (130 if number == signal.SIGINT else -number)
    assert ("unwound" in out) == (work == "sleep")
    assert not Path(f"/proc/{child}").exists()


def test_a_killed_parent_leaves_no_child() -> None:
    process = start("run(lambda: (print(os.getpid(), flush=True), forever()))")
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
        assert process.stdout.read() == ""  # Ends when the child has ended, too.
