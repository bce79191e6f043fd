# SPDX-License-Identifier: GPL-2.0-or-later
"""
Go on in a child with limits, while this process waits for it.

What a child found before it was ended is kept: the next child leaves out the step that
ended it, and finds all else.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType

from kmemdump.bounds.attempts import OUT_OF_TIME, Attempts
from kmemdump.bounds.page import Partner, StatePage
from kmemdump.bounds.steps import Limits, limit_process, state
from kmemdump.errors import IncompleteAnswerError

__all__ = ["ChildEnded", "go_on_in_child"]

_ADVICE = "raise --max-memory, --max-cpu or --max-time if you trust it"
_ECHO = 0.1
"""Seconds after which a signal is passed on that a terminal sends to both."""
_LOOK = 1.0
"""Seconds between two looks at what a child does."""
_C_PATIENCE = 0.5
"""Seconds in which a process that does not run C code notices a signal."""
_END_PATIENCE = 3.0
"""Seconds in which a child that noticed it ends."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h


class ChildEnded(Exception):
    """
    All work was done in a child; this process has nothing more to do.

    :param status: The child's exit status.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def go_on_in_child(
    limits: Limits,
    clean_up: Callable[[str], None],
    print_problem: Callable[[str], None],
) -> None:
    """
    Fork. In the child, return; in this process, wait for it and raise.

    There must be no other threads.

    :param clean_up: Called here, with the name of what it held, if a child was ended
        that held something.
    :param print_problem: Called if a child was ended with which a person talked, who
        gets another one.
    :raises ChildEnded: In this process, when the child has ended by itself.
    :raises BudgetExceededError: In this process, if it exceeded a limit whatever was
        left out.
    :raises IncompleteAnswerError: The same, if it had printed answers, and could not
        go on.
    :raises KeyboardInterrupt: If it was interrupted, and did not end by itself.
    """
    if state() is not None:
        return  # This is the child.
    attempts = Attempts(limits)
    printed, failed = 0, False
    while True:
        page = StatePage()
        page.printed, page.failed = printed, failed
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        before = _children_cpu()
        # Until both are ready for them.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        pid = os.fork()
        if pid == 0:
            _begin(page, limits, attempts)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            return
        with contextlib.closing(page):
            status, number = _wait(pid, page, attempts.deadline)
            if page.held and status < 0:
                clean_up(page.held)
            if number == signal.SIGTERM:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                os.kill(os.getpid(), signal.SIGTERM)
            if status >= 0:
                raise ChildEnded(status)
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            what, partner = page.step, page.partner
            printed, failed = page.printed, page.failed
        spent = _children_cpu() - before
        reason = attempts.describe(status, spent)
        if partner is Partner.PERSON:
            print_problem(f"{reason}; what was defined is forgotten")
            attempts.begin_again()
            continue
        if partner is Partner.STREAM:
            raise IncompleteAnswerError(f"{reason}; the questions after it are not put")
        attempts.note(what, status, spent, _ADVICE)


def _begin(page: StatePage, limits: Limits, attempts: Attempts) -> None:
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def interrupt(number: int, frame: FrameType | None) -> None:
        page.note_signal()
        signal.default_int_handler(number, frame)

    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    limit_process(page, limits, attempts.refused, last=attempts.last, cpu=attempts.cpu)


def _wait(pid: int, page: StatePage, deadline: float) -> tuple[int, int]:
    """Wait for a child; return its exit status, and the signal that ended the wait."""
    pidfd = os.pidfd_open(pid)
    got = noticed = 0
    late = False
    try:
        with _noted_signals() as (wake, pending):
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.register(wake, select.POLLIN)
            while True:
                left = max(deadline - time.monotonic(), 0.0)
                endless = page.partner in (Partner.PERSON, Partner.DEBUGGER)
                # Not to the end: who it works with may change.
                found = dict(poll.poll(min(left, _LOOK) * 1000 + 1))
                if pidfd in found:
                    break
                if wake in found:
                    os.read(wake, 4096)
                    while pending:
                        got = pending.pop()
                    if _end(pid, pidfd, page, got, noticed):
                        break
                    got, noticed = 0, page.signals
                elif not endless and time.monotonic() >= deadline:
                    late = True
                    os.kill(pid, signal.SIGKILL)
    finally:
        os.close(pidfd)
        _, raw = os.waitpid(pid, 0)
    status = os.waitstatus_to_exitcode(raw)
    return (OUT_OF_TIME if late and status < 0 else status), got


def _end(pid: int, pidfd: int, page: StatePage, number: int, noticed: int) -> bool:
    """Let a signal end a child, at once; return whether it ends."""
    if page.partner is Partner.DEBUGGER:
        if number != signal.SIGINT:  # Which a terminal sends to both.
            os.kill(pid, number)
        return number != signal.SIGINT
    if not _ends(pidfd, _ECHO) and page.signals == noticed:
        os.kill(pid, number)
        _ends(pidfd, _C_PATIENCE)
    person = page.partner is Partner.PERSON
    if page.signals != noticed and person and number == signal.SIGINT:
        return False  # The question is dropped, and another one may follow.
    if page.signals == noticed or not _ends(pidfd, _END_PATIENCE):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return True


def _ends(pidfd: int, seconds: float) -> bool:
    return bool(select.select([pidfd], [], [], seconds)[0])


@contextlib.contextmanager
def _noted_signals() -> Iterator[tuple[int, list[int]]]:
    """Note SIGINT and SIGTERM; yield what becomes readable then, and their numbers."""
    pending: list[int] = []
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = {
        number: signal.signal(number, lambda number, _frame: pending.append(number))
        for number in _SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    woken = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    try:
        yield read, pending
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(read)
        os.close(write)


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
