# SPDX-License-Identifier: GPL-2.0-or-later
"""
Adds each death to a catalogue, in processes beside the watch.

A core image takes a second of CPU time to examine, and a catalogue may be on a disk or
a network that is slow or gone: neither delays the watch. What cannot be added is tried
again for as long as the watch runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import threading
from collections.abc import Mapping, Sequence
from tempfile import TemporaryFile

from kmemdump.bounds.start import OWN_PYTHON
from kmemdump.errors import ExitCode
from kmemdump.text import printable
from kmemdump.watch.events import Event, EventName
from kmemdump.watch.program import ProgramFailure

__all__ = ["CatalogueAdder"]

_MAX_WAITING = 10_000
_AT_ONCE = 256
"""Deaths for one process."""
_SECONDS = 3600.0
"""Time for one process; each source has a limit of its own."""
_NICENESS = 10
"""Behind the VMs, but a tenth of a CPU's time even beside a busy one; 19 starves."""
_DELAYS = (1.0, 10.0, 60.0)
"""Seconds until the next attempt; the last one for all that follow."""
_DONE = (ExitCode.DONE, ExitCode.INCOMPLETE)
"""All have rows; INCOMPLETE: a row says why there is no report."""


class CatalogueAdder:
    """
    Runs ``kmemdump catalogue add`` for deaths, one process at a time.

    :param place: The catalogue: a folder or URL.
    :param environ: The environment of the processes.
    """

    def __init__(self, place: str, environ: Mapping[str, str]) -> None:
        self._place = place
        self._environ = dict(environ)
        self._waiting: queue.Queue[tuple[str, bytes] | None] = queue.Queue(_MAX_WAITING)
        self._failures: queue.SimpleQueue[ProgramFailure] = queue.SimpleQueue()
        self._ending = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._last: list[subprocess.Popen[str]] = []
        """Processes that go on after the watch."""
        self._thread = threading.Thread(
            target=self._work, name="catalogue", daemon=True
        )
        self._thread.start()

    def take(self, event: Event) -> None:
        """Add the event if it is a death. Does not wait."""
        if event.event is not EventName.DEATH:
            return
        record = dict(event.record())
        if event.core is not None:
            record["core"] = os.path.abspath(event.core)
        try:
            self._waiting.put_nowait((event.vm, json.dumps(record).encode() + b"\n"))
        except queue.Full:
            self._fail(event.vm, f"{_MAX_WAITING} deaths are waiting already")

    def failures(self) -> list[ProgramFailure]:
        """Return what failed and was not returned before."""
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._failures.get_nowait())
        return found

    def close(self, patience: float) -> None:
        """
        Add what waits.

        A process that takes longer goes on by itself, and another one adds what waits
        for it: deaths would be lost else.

        :param patience: Seconds.
        """
        self._ending.set()
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join(patience)
        process = self._process
        if not self._thread.is_alive() or process is None:
            return
        self._fail("", f"process {process.pid} still adds deaths, and goes on")
        while deaths := self._take_waiting(block=False):
            try:
                process = self._start(deaths)
            except OSError as error:
                text = f"{len(deaths)} deaths were not added: {error.strerror}"
                self._fail(deaths[-1][0], text)
            else:
                self._last.append(process)
                self._fail("", f"process {process.pid} adds the other deaths")

    def _work(self) -> None:
        attempt = 0
        deaths: list[tuple[str, bytes]] = []
        while True:
            deaths += self._take_waiting(block=not deaths)
            if not deaths:
                return
            problem = self._add(deaths)
            if problem is None:
                deaths, attempt = [], 0
                continue
            self._fail(deaths[-1][0], problem)
            if self._ending.wait(_DELAYS[min(attempt, len(_DELAYS) - 1)]):
                self._fail(deaths[-1][0], f"{len(deaths)} deaths were not added")
                return
            attempt += 1

    def _take_waiting(self, *, block: bool) -> list[tuple[str, bytes]]:
        """Return what waits; nothing if the watch ends."""
        found: list[tuple[str, bytes]] = []
        with contextlib.suppress(queue.Empty):
            while len(found) < _AT_ONCE:
                wait = block and not found and not self._ending.is_set()
                item = self._waiting.get(block=wait)
                if item is not None:
                    found.append(item)
                elif not found and self._waiting.empty():
                    break
        return found

    def _add(self, deaths: Sequence[tuple[str, bytes]]) -> str | None:
        """Add deaths; return what went wrong."""
        try:
            process = self._process = self._start(deaths, stderr=subprocess.PIPE)
        except OSError as error:
            return error.strerror or str(error)
        try:
            _, said = process.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return f"killed after {_SECONDS:g} s"
        if process.returncode in _DONE:
            return None
        last = said.strip().splitlines()[-1:] or [f"status {process.returncode}"]
        return last[0].removeprefix("kmemdump: ")

    def _start(
        self, deaths: Sequence[tuple[str, bytes]], stderr: int = subprocess.DEVNULL
    ) -> subprocess.Popen[str]:
        """Start a process that adds deaths, also after the watch has ended."""
        program = [*OWN_PYTHON, "-m", "kmemdump", "catalogue", "add"]
        with TemporaryFile() as lines:
            lines.writelines(line for _, line in deaths)
            lines.seek(0)
            process = subprocess.Popen(
                [*program, "--events", "-", "--to", self._place, "--jobs", "1"],
                env=self._environ,
                stdin=lines,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                text=True,
                errors="replace",
                start_new_session=True,  # A Ctrl-C is for the watch.
            )
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, _NICENESS)
        return process

    def _fail(self, vm: str, problem: str) -> None:
        text = f"catalogue {self._place}: {problem}"
        self._failures.put(ProgramFailure(vm, printable(text)))
