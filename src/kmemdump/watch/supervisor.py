# SPDX-License-Identifier: GPL-2.0-or-later
"""
Several VMs at once, each in a process of its own.

A VM that hangs, lies about its memory, or makes a debugger crash, harms only the
process that watches it.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import multiprocessing
import os
import resource
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from kmemdump.errors import KmemdumpError
from kmemdump.marking.selection import Selection
from kmemdump.watch.reporter import Voice
from kmemdump.watch.settings import Settings
from kmemdump.watch.watcher import Outcome, Watcher

__all__ = ["Report", "watch_fleet"]

_MAX_DATA = 4 << 30
"""Bytes of its own memory that a process may have; a vmlinux is in it."""
_END_PATIENCE = 20.0
"""Seconds that a process has to end, which may be writing a core image."""
_PR_SET_PDEATHSIG = 1  # Linux include/uapi/linux/prctl.h


@dataclass(frozen=True, slots=True)
class Report:
    """News of a VM."""

    name: str
    text: str
    passing: bool
    """Whether it is only what is going on now, and soon outdated."""


def watch_fleet(
    sockets: Mapping[str, Path],
    make_selection: Callable[[], Selection],
    settings: Settings,
    report: Callable[[Report], None],
) -> dict[str, Outcome]:
    """
    Watch VMs until all have ended.

    Must be called by the main thread. If it raises (:exc:`KeyboardInterrupt`),
    what is being written is finished first.

    :param sockets: Names of VMs, for reports and core images, and QMP sockets.
    :param make_selection: Returns what to mark; is called in each process, so that it
        must be possible to pickle it.
    :param report: Called with news, by the caller's thread.
    """
    context = multiprocessing.get_context("spawn")
    workers: dict[Connection, tuple[str, SpawnProcess]] = {}
    outcomes: dict[str, Outcome] = {}
    try:
        for name, socket in sockets.items():
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(
                target=_work,
                args=(theirs, os.getpid(), name, socket, make_selection, settings),
                name=f"kmemdump watch {name}",
                daemon=True,
            )
            process.start()
            theirs.close()
            workers[ours] = name, process
        while workers:
            _listen(workers, outcomes, report)
    finally:
        _end(workers, outcomes, report)
    return outcomes


def _listen(
    workers: dict[Connection, tuple[str, SpawnProcess]],
    outcomes: dict[str, Outcome],
    report: Callable[[Report], None],
    timeout: float | None = None,
) -> bool:
    """Take what the processes say; return False if they say nothing in time."""
    ready = wait(list(workers), timeout)
    for connection in ready:
        assert isinstance(connection, Connection)
        name, process = workers[connection]
        try:
            message = connection.recv()
        except (EOFError, OSError):
            del workers[connection]
            connection.close()
            process.join()
            if name not in outcomes:
                problem = f"its process died ({_how(process.exitcode)})"
                outcomes[name] = Outcome(problem=problem)
            continue
        if isinstance(message, Outcome):
            outcomes[name] = message
        else:
            report(message)
    return bool(ready)


def _end(
    workers: dict[Connection, tuple[str, SpawnProcess]],
    outcomes: dict[str, Outcome],
    report: Callable[[Report], None],
) -> None:
    for _, process in workers.values():
        with contextlib.suppress(OSError):
            process.terminate()
    with _signals_held():
        while workers and _listen(workers, outcomes, report, _END_PATIENCE):
            pass
    for connection, (_, process) in workers.items():
        process.kill()
        process.join()
        connection.close()


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Let no second Ctrl-C interrupt the end; whoever is in a hurry has SIGKILL."""
    held = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, held)


def _how(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-exit_code).name
    return f"exit status {exit_code}"


def _work(
    connection: Connection,
    parent: int,
    name: str,
    socket: Path,
    make_selection: Callable[[], Selection],
    settings: Settings,
) -> None:
    """Watch a VM: all that a process does."""
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # A terminal sends it to all.
    _die_with(parent)
    _limit_memory()

    def say(text: str) -> None:
        connection.send(Report(name, text, passing=False))

    def show(text: str) -> None:
        connection.send(Report(name, text, passing=True))

    logging.basicConfig(handlers=[_Log(show)])
    logging.captureWarnings(True)
    try:
        voice = Voice(say, show, lambda: stopping)
        outcome = Watcher(name, socket, make_selection(), settings, voice).run()
    except (KmemdumpError, OSError, MemoryError) as error:
        outcome = Outcome(problem=str(error) or type(error).__name__)
    except Exception as error:
        problem = f"a bug of kmemdump: {type(error).__name__}: {error}"
        outcome = Outcome(problem=f"{problem}\n{traceback.format_exc()}")
    connection.send(outcome)


class _Log(logging.Handler):
    """Shows what drgn and others log: a dead kernel gives them much to complain of."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        self._show(self.format(record))


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent's main thread ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # It has died before.
        os.kill(os.getpid(), signal.SIGKILL)


def _limit_memory() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = _MAX_DATA if hard == resource.RLIM_INFINITY else min(hard, _MAX_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
