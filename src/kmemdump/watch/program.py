# SPDX-License-Identifier: GPL-2.0-or-later
"""
Runs the operator's program for each death.

It runs beside the watch, in threads that wait for it, so that neither a program that
hangs nor a slow disk that it lies on delays the watch of a VM. No shell is involved:
the guest's words are values in its environment, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from kmemdump.bounds.attempts import describe_status
from kmemdump.errors import UsageError
from kmemdump.text import printable
from kmemdump.watch.events import Event, EventName

__all__ = ["Follower", "ProgramFailure", "ProgramRunner", "find_program"]

PREFIX = "KMEMDUMP_"
_AT_ONCE = 4
"""Programs that run at the same time; others wait for them."""
_MAX_WAITING = 1000
_MAX_VALUE = 4096
"""Characters of a value; more are left out."""
_TERM_PATIENCE = 2.0
"""Seconds from SIGTERM to SIGKILL."""
_NOT_PASSED_ON = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
"""Variables by which the service manager knows us: sd_notify(3)."""


@dataclass(frozen=True, slots=True)
class ProgramFailure:
    """A run that did not succeed."""

    vm: str
    """The VM whose kernel died."""
    text: str
    """What happened, in one line."""


class Follower(Protocol):
    """Does something for each death, without delaying the watch."""

    def take(self, event: Event) -> None:
        """Take each event. Must not wait."""

    def failures(self) -> list[ProgramFailure]:
        """Return what failed and was not returned before."""

    def close(self, patience: float) -> None:
        """Come to an end within *patience* seconds."""


@dataclass(frozen=True, slots=True)
class _Run:
    vm: str
    environ: Mapping[bytes, bytes]


def find_program(name: str) -> str:
    """
    Return the absolute path of a program.

    :raises UsageError: If it cannot be run.
    """
    found = shutil.which(name)
    if found is None:
        raise UsageError(f"--exec {name}: is no program that can be run")
    return os.path.abspath(found)


class ProgramRunner:
    """
    Runs a program for each death, a few at a time.

    :param program: Its path.
    :param seconds: Time for each run; then it is killed with its process group.
    :param environ: The environment that each run gets, without what belongs to us.
    """

    def __init__(
        self, program: str, seconds: float, environ: Mapping[str, str]
    ) -> None:
        self._program = program
        self._seconds = seconds
        self._environ = {
            os.fsencode(name): os.fsencode(value)
            for name, value in environ.items()
            if name not in _NOT_PASSED_ON and not name.startswith(PREFIX)
        }
        self._waiting: queue.Queue[_Run | None] = queue.Queue(_MAX_WAITING)
        self._failures: queue.SimpleQueue[ProgramFailure] = queue.SimpleQueue()
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        """By the thread that waits for it."""
        self._lock = threading.Lock()
        self._ending = False
        self._threads = [
            threading.Thread(target=self._work, name=f"program {i}", daemon=True)
            for i in range(_AT_ONCE)
        ]
        for thread in self._threads:
            thread.start()

    def take(self, event: Event) -> None:
        """
        Run the program if the event is a death, as soon as there is a free place.

        Does not wait.
        """
        if event.event not in (EventName.DEATH, EventName.NO_CORE) or not event.kind:
            return  # Without a kind, a core image was asked for, and refused.
        environ = dict(self._environ)
        for name, value in {**event.record(), "core": event.core}.items():
            if value is not None and name != "version":
                environ[f"{PREFIX}{name.upper()}".encode()] = _as_value(value)
        try:
            self._waiting.put_nowait(_Run(event.vm, environ))
        except queue.Full:
            text = f"not run: {_MAX_WAITING} runs are waiting already"
            self._fail(event.vm, text)

    def failures(self) -> list[ProgramFailure]:
        """Return what failed and was not returned before."""
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._failures.get_nowait())
        return found

    def close(self, patience: float) -> None:
        """
        Let the runs come to an end, and kill those that do not.

        :param patience: Seconds for all of them.
        """
        deadline = time.monotonic() + patience
        for _ in self._threads:
            with contextlib.suppress(queue.Full):
                self._waiting.put_nowait(None)
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
        with self._lock:
            self._ending = True
            for process in self._running.values():
                _kill(process, signal.SIGKILL)
        for thread in self._threads:
            thread.join(_TERM_PATIENCE)
        with contextlib.suppress(queue.Empty):
            while True:
                run = self._waiting.get_nowait()
                if run is not None:
                    self._fail(run.vm, "not run: the watch ends")

    def _work(self) -> None:
        while not self._ending:
            run = self._waiting.get()
            if run is None:
                return
            try:
                problem = self._run(run)
            except OSError as error:
                problem = error.strerror or str(error)
            if problem:
                self._fail(run.vm, problem)

    def _run(self, run: _Run) -> str:
        """Run the program; return what went wrong."""
        process = subprocess.Popen(
            [self._program],
            env=dict(run.environ),
            stdin=subprocess.DEVNULL,
            stdout=2,  # Standard output is that of "watch --json".
            start_new_session=True,
        )
        me = threading.get_ident()
        with self._lock:
            self._running[me] = process
            if self._ending:
                _kill(process, signal.SIGKILL)
        try:
            late = not _ends(process, self._seconds)
            if late:
                _kill(process, signal.SIGTERM)
                _ends(process, _TERM_PATIENCE)
                _kill(process, signal.SIGKILL)  # Its children, too.
        finally:
            # Its number is another's once it is waited for.
            with self._lock:
                del self._running[me]
            status = process.wait()
        if late:
            return f"killed after {self._seconds:g} s"
        return describe_status(status) if status else ""

    def _fail(self, vm: str, problem: str) -> None:
        text = f"{self._program}: {problem}"
        self._failures.put(ProgramFailure(vm, printable(text)))


def _ends(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Return whether a process ends in time; it is not waited for."""
    fd = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(fd)


def _kill(process: subprocess.Popen[bytes], number: int) -> None:
    """Kill a process that was not waited for, and its group."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, number)


def _as_value(value: object) -> bytes:
    """Return a value of an environment: a line that can be printed, or a path."""
    if isinstance(value, os.PathLike):
        return os.fsencode(os.path.abspath(value))  # As it is, so that it opens.
    if isinstance(value, bool):
        return b"1" if value else b"0"
    if isinstance(value, float):
        return f"{value:.3f}".encode()
    return printable(str(value))[:_MAX_VALUE].encode()
