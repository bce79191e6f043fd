# SPDX-License-Identifier: GPL-2.0-or-later
"""
Refresh marks on a timer and when asked, whatever happens, until asked to stop.

SIGUSR1 and SIGHUP ask for a refresh at once, SIGTERM and SIGINT for the end. Signals
are taken between two looks at the kernel, so that none tears a change of the table.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kmemdump.agent import status
from kmemdump.agent.status import Meter
from kmemdump.errors import KmemdumpError
from kmemdump.marking.pace import Pace
from kmemdump.marking.registration import RefreshResult, Registration
from kmemdump.questions.question import explain

__all__ = ["INTERVAL", "Agent", "held_signals"]

_STOP = {signal.SIGTERM, signal.SIGINT}
_REFRESH = {signal.SIGUSR1, signal.SIGHUP}
INTERVAL = 10.0
"""Seconds from the start of a look to the next, if looks are cheap."""


@contextmanager
def held_signals() -> Iterator[None]:
    """Block the agent's signals; it takes them when it waits for them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP | _REFRESH)
    try:
        yield
    finally:
        while signal.sigtimedwait(_STOP | _REFRESH, 0):  # Too late for the agent.
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Agent:
    """
    Keeps a registration fresh. Use it within :func:`held_signals`.

    :param asked: Seconds from the start of a look to the next, whatever looks cost.
        ``None``: :data:`INTERVAL`, or more if they would take over 1 % of one CPU.
    :param report: Called after each look, the first included, with its result, and the
        seconds from its start to the next.
    :param folder: For the status; ``None`` writes none.
    """

    def __init__(
        self,
        registration: Registration,
        asked: float | None,
        report: Callable[[RefreshResult | Exception, float], None],
        folder: Path | None = None,
    ) -> None:
        self._registration = registration
        self._pace = Pace(asked, INTERVAL)
        self._due = time.monotonic() + self._pace.interval
        self._report = report
        self._folder = folder
        self._meter = Meter()
        self._started = self._marked = time.time()
        self._refreshes = self._failures = 0
        self._failure = ""
        self._report(registration.last, self._pace.interval)
        self._publish()

    def run(self) -> None:
        """
        Refresh until SIGTERM or SIGINT.

        :raises TargetError: If the kernel is gone.
        """
        while True:
            wait = max(self._due - time.monotonic(), 0)
            came = signal.sigtimedwait(_STOP | _REFRESH, wait)
            if came is not None and came.si_signo in _STOP:
                return
            if came is None and time.monotonic() < self._due:
                continue  # Another signal, such as SIGCONT.
            self._refresh()

    def close(self) -> None:
        """Remove the status."""
        if self._folder is not None:
            status.remove(self._folder, self._registration.table)

    def _refresh(self) -> None:
        self._registration.check()
        start, before, now = time.monotonic(), time.process_time(), time.time()
        result: RefreshResult | Exception
        try:
            result = self._registration.refresh()
        # The registered regions are still good. Live memory changes while it is
        # read, so drgn and questions may raise anything.
        except Exception as error:
            self._failures += 1
            self._failure = explain(error)
            result = error
        else:
            self._marked = now
            self._failure = ""
        self._refreshes += 1
        cost = time.process_time() - before
        self._meter.add_look(cost)
        interval = self._pace.count(cost)
        self._due = start + interval
        self._report(result, interval)
        self._publish()

    def _publish(self) -> None:
        if self._folder is None:
            return
        last = self._registration.last
        held = status.Status(
            target=self._registration.target_name,
            table=self._registration.table,
            pid=os.getpid(),
            kernel=self._registration.kernel,
            started=self._started,
            marked=self._marked,
            interval=self._pace.interval,
            regions=len(last.plan.regions),
            bytes=last.plan.size,
            refreshes=self._refreshes,
            failures=self._failures,
            failure=self._failure,
            problems=last.problems,
            cost=self._meter.read(self._due - time.monotonic()),
        )
        try:
            status.write(self._folder, self._registration.table, held)
        except KmemdumpError as error:  # Such as a full /run.
            self._report(error, self._pace.interval)
