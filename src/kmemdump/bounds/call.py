# SPDX-License-Identifier: GPL-2.0-or-later
"""
Call a function in a child with limits, from a program that may have threads.

The child is started anew, as :mod:`multiprocessing` does with ``spawn``: threads and
locks of this process are not in it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from typing import Any

from kmemdump.bounds.attempts import OUT_OF_TIME, Attempts
from kmemdump.bounds.page import StatePage
from kmemdump.bounds.shared_page import SharedPage
from kmemdump.bounds.start import start_process
from kmemdump.bounds.steps import Limits, limit_process
from kmemdump.errors import BudgetExceededError, KmemdumpError
from kmemdump.proc.process_stat import read_stat

__all__ = ["call_in_child", "cpu_of", "end_with_parent"]

_ADVICE = "raise its limits if you trust it"
_LOOK = 1.0
"""Seconds from one look of this process at the time to the next."""
_HOLD_PATIENCE = 20.0
"""Seconds that a child whose parent has ended may have a VM paused, or write a file."""
_POLL = 0.05
_END_PATIENCE = 0.2
"""Seconds that a child has to be gone that said nothing: it was ended, or is late."""


def call_in_child(
    function: Callable[..., Any],
    arguments: Sequence[Any],
    limits: Limits,
    clean_up: Callable[[str], None],
) -> Any:
    """
    Call a function in a child, and return what it returns.

    If the child is ended in a step, another one leaves that step out.

    :param function: Its arguments, its result and itself must be picklable.
    :param clean_up: Called with the name of what a child held that was ended.
    :raises BudgetExceededError: If it exceeded a limit whatever was left out.
    :raises Exception: What *function* raises.
    """
    attempts = Attempts(limits)
    while True:
        with contextlib.closing(SharedPage()) as page:
            call = _Call(function, arguments, limits, attempts, page)
            try:
                ended = not call.wait(attempts.deadline)
            finally:
                status, spent = call.end()
                if page.held:
                    clean_up(page.held)
            if not ended:
                return call.result()
            if status >= 0:
                raise KmemdumpError(f"its process ended with exit status {status}")
            if time.monotonic() >= attempts.deadline:
                status = OUT_OF_TIME
            attempts.note(page.step, status, spent, _ADVICE)


class _Call:
    """A child that calls a function once."""

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: Sequence[Any],
        limits: Limits,
        attempts: Attempts,
        page: SharedPage,
    ) -> None:
        context = get_context("spawn")
        self._connection, theirs = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_work,
            args=(theirs, page, limits, attempts, function, arguments),
            daemon=True,
        )
        self._answer: tuple[bool, Any] | None = None
        try:
            start_process(self._process)
        except BaseException:
            self._connection.close()
            raise
        finally:
            theirs.close()

    def wait(self, deadline: float) -> bool:
        """Wait for its answer; return whether there is one."""
        while not self._connection.poll(_LOOK):
            if time.monotonic() >= deadline:
                return False
        try:
            self._answer = self._connection.recv()
        except (EOFError, OSError):  # It was ended, maybe while it sent.
            return False
        return True

    def result(self) -> Any:
        """Return what the function returned, or raise what it raised."""
        assert self._answer is not None
        succeeded, value = self._answer
        if succeeded:
            return value
        raise value

    def end(self) -> tuple[int, float]:
        """End it if it has not; return its exit status, and the CPU time it took."""
        self._connection.close()
        if self._answer is None and not wait([self._process.sentinel], _END_PATIENCE):
            self._process.kill()
        wait([self._process.sentinel])
        spent = cpu_of(self._process.pid)
        self._process.join()
        status = self._process.exitcode or 0
        self._process.close()
        return status, spent


def cpu_of(pid: int | None) -> float:
    """Return the CPU seconds of a process; 0 if it is gone."""
    found = read_stat(f"/proc/{pid}/stat")
    return 0.0 if found is None else found.cpu_seconds


def _work(
    connection: Connection,
    page: StatePage,
    limits: Limits,
    attempts: Attempts,
    function: Callable[..., Any],
    arguments: Sequence[Any],
) -> None:
    """Call the function; the main function of a child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # A terminal sends it to both.
    end_with_parent(page)
    limit_process(page, limits, attempts.refused, last=attempts.last, cpu=attempts.cpu)
    answer: tuple[bool, Any]
    try:
        answer = True, function(*arguments)
    except MemoryError:
        problem = f"took more than {limits.memory} bytes of memory\n{_ADVICE}"
        answer = False, BudgetExceededError(problem)
    except Exception as error:
        error.add_note(traceback.format_exc())
        answer = False, error
    try:
        connection.send(answer)
    except Exception as error:
        connection.send((False, TypeError(f"what it returned cannot be sent: {error}")))


def end_with_parent(page: StatePage) -> None:
    """
    End this process when the one ends that started it, however that happens.

    :param page: Where it says that it has something that must not be left: it has some
        seconds then to give that up.
    """
    parent = parent_process()
    assert parent is not None

    def wait_and_die() -> None:
        wait([parent.sentinel])
        deadline = time.monotonic() + _HOLD_PATIENCE
        while page.holds and time.monotonic() < deadline:
            time.sleep(_POLL)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait_and_die, name="parent", daemon=True).start()
