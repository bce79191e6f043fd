# SPDX-License-Identifier: GPL-2.0-or-later
"""A program calls a function in a child, which ends whatever the function does."""

import multiprocessing
import os
import signal
import threading
import time

import pytest

from kmemdump import Limits, run_bounded
from kmemdump.bounds import attempts, call, steps
from kmemdump.bounds.page import StatePage, label
from kmemdump.bounds.steps import step
from kmemdump.errors import BudgetExceededError, FormatError, KmemdumpError

pytestmark = pytest.mark.slow

# These run in the child, which imports this module.


def forever() -> None:
    sum(range(1 << 60))


def bomb(path: str, name: str = "bomb") -> list[str]:
    """Three questions, of which the second never ends in C code."""
    steps._MARGIN = 0
    found = []
    for what, work in (("one", str), (name, forever), ("two", str)):
        try:
            with step(what, 1.0, 10.0):
                work()
            found.append(f"{what} {path}")
        except BudgetExceededError as error:
            found.append(f"{what}: {error}")
    return found


def refuse() -> None:
    raise FormatError("dump", "is none")


def take_memory() -> int:
    return len(bytearray(1 << 30))


def hold_and_hang() -> None:
    steps.hold(True, "qmp:/run/vm.qmp")
    forever()


def leave() -> None:
    os._exit(3)


def sleep() -> None:
    time.sleep(600)


def test_what_a_question_costs_is_bounded_and_the_rest_is_found() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()  # A program that uses a library has threads.
    try:
        one, left_out, two = run_bounded(bomb, "file")
    finally:
        stop.set()
        thread.join()
    assert (one, two) == ("one file", "two file")
    assert left_out.startswith("bomb: took ")
    assert steps.state() is None  # This process has no limits.


def test_work_between_questions_is_bounded() -> None:
    # What it took to start counts, too; on a slow host, that is another second.
    with pytest.raises(BudgetExceededError, match=r"(?s)took [1-3] s.*raise its lim"):
        run_bounded(forever, limits=Limits(cpu=1))


def test_memory_is_bounded() -> None:
    with pytest.raises(BudgetExceededError, match="took more than 536870912 bytes"):
        run_bounded(take_memory, limits=Limits(memory=512 << 20))
    assert run_bounded(take_memory) == 1 << 30


def test_time_is_bounded() -> None:
    with pytest.raises(BudgetExceededError, match="ended after 3 s"):
        run_bounded(sleep, limits=Limits(seconds=3))


def test_errors_are_raised_here_and_say_where_they_came_from() -> None:
    with pytest.raises(FormatError, match="dump: is none") as caught:
        run_bounded(refuse)
    assert "in refuse" in caught.value.__notes__[0]
    with pytest.raises(TypeError, match="what it returned cannot be sent"):
        run_bounded(threading.Lock)
    with pytest.raises(KmemdumpError, match="its process ended with exit status 3"):
        run_bounded(leave)


def test_what_it_held_is_let_go() -> None:
    held: list[str] = []
    with pytest.raises(BudgetExceededError):
        call.call_in_child(hold_and_hang, (), Limits(cpu=1), held.append)
    assert held == ["qmp:/run/vm.qmp"]


def test_an_interrupt_leaves_no_child() -> None:
    before = set(os.listdir("/proc/self/task"))
    timer = threading.Timer(2, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run_bounded(sleep)
    timer.join()
    assert not multiprocessing.active_children()
    # A thread of the test before may have ended only now, and the timer's just ends.
    deadline = time.monotonic() + 60
    while not set(os.listdir("/proc/self/task")) <= before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_page_names_what_is_held() -> None:
    page = StatePage()
    page.hold(True, "qmp:a")
    page.begin("step")
    assert (page.holds, page.held, page.step) == (True, "qmp:a", "step")
    page.hold(False)
    assert not page.holds
    page.close()


@pytest.mark.parametrize("name", ["b" * 300, "bomb \udcff", "bomb \0 bomb"])
def test_a_step_of_any_name_is_left_out(name: str) -> None:
    one, left_out, two = run_bounded(bomb, "file", name)
    assert (one, two) == ("one file", "two file")
    assert ": took " in left_out


def test_names_are_different_if_they_are_cut() -> None:
    names = {label("x" * 300 + end) for end in ("", "a", "b")}
    assert len(names) == 3
    assert all(len(name) == 255 for name in names)


def test_a_long_path_is_named_whole() -> None:
    page, path = StatePage(), "qmp:/" + 3000 * "a" + "\udcff"
    page.hold(True, path)
    assert page.held == path
    page.close()


def test_all_attempts_share_the_time_and_the_last_one_has_as_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(attempts.time, "monotonic", lambda: now)
    tries = attempts.Attempts(Limits(cpu=100, seconds=50))
    assert (tries.deadline, tries.cpu) == (1050, 100)
    now = 1030.0
    tries.note("one", -signal.SIGXCPU, 60, "")
    assert (tries.deadline, tries.cpu, tries.last) == (1050, 40, None)
    now = 1050.0
    tries.note("two", attempts.OUT_OF_TIME, 10, "")
    # It does again what the others could do, which may take as long.
    assert (tries.deadline, tries.cpu, tries.last) == (1100, 100, "two")
    with pytest.raises(BudgetExceededError):
        tries.note("three", attempts.OUT_OF_TIME, 10, "")
