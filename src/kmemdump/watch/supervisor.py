# SPDX-License-Identifier: GPL-2.0-or-later
"""
Watches several VMs at once, each in a process of its own.

A VM that hangs, lies about its memory, or makes drgn crash, harms only the process
that watches it.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from kmemdump.errors import KmemdumpError, UsageError
from kmemdump.marking.selection import Selection
from kmemdump.watch.reporter import Message, Reporter
from kmemdump.watch.settings import Settings
from kmemdump.watch.watcher import Outcome, Watcher

__all__ = ["name_vms", "watch_vms"]

_MAX_DATA = 4 << 30
"""Bytes of memory that a process may allocate; a vmlinux is loaded into it."""
_END_PATIENCE = 20.0
"""Seconds that a process has to end; it may be writing a core image."""
_MAX_NAME = 100
_PR_SET_PDEATHSIG = 1  # Linux include/uapi/linux/prctl.h


def name_vms(sockets: Sequence[str]) -> dict[str, Path]:
    """
    Return the absolute path of each socket by the shortest unique name of its VM.

    :param sockets: Paths, with or without ``qmp:``.
    :raises UsageError: If a socket is given twice.
    """
    paths = [Path(spec.removeprefix("qmp:")).absolute() for spec in sockets]
    if len(set(paths)) < len(paths):
        raise UsageError("a socket is named twice, expected each VM once")
    longest = max((len(path.parts) for path in paths), default=0)
    for depth in range(1, longest + 1):
        names = [_name(path, depth) for path in paths]
        if len(set(names)) == len(names):
            break
    else:
        names = [f"{_name(path, longest)}-{i}" for i, path in enumerate(paths, 1)]
    return dict(zip(names, paths, strict=True))


def _name(path: Path, depth: int) -> str:
    """Return the last *depth* parts of a path as a part of a file's name."""
    parts = [*path.parts[-depth:-1], path.stem or path.name]
    name = "-".join(part.strip("/") for part in parts)
    clean = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
    return clean.strip("-.")[-_MAX_NAME:] or "vm"


def watch_vms(
    sockets: Mapping[str, Path],
    make_selection: Callable[[], Selection],
    settings: Settings,
    report: Callable[[Message], None],
) -> dict[str, Outcome]:
    """
    Watch VMs until all have ended.

    Must be called by the main thread. Before it raises (:exc:`KeyboardInterrupt`),
    core images that are being written are finished.

    :param sockets: QMP socket of each VM, by the name for messages and core images.
    :param make_selection: Returns what to mark; must be picklable, because each process
        calls it.
    :param report: Called with each message, in the caller's thread.
    :return: How each watch ended, by the VM's name.
    :raises KmemdumpError: If core images cannot be written into the folder.
    """
    _make_folder(settings.folder)
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
            _receive(workers, outcomes, report)
    finally:
        _end(workers, outcomes, report)
    return outcomes


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KmemdumpError(f"cannot make {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise KmemdumpError(f"cannot write into {folder}")


def _receive(
    workers: dict[Connection, tuple[str, SpawnProcess]],
    outcomes: dict[str, Outcome],
    report: Callable[[Message], None],
    timeout: float | None = None,
) -> bool:
    """Take the processes' messages; return False if none comes in time."""
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
                problem = f"its process died ({_exit_reason(process.exitcode)})"
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
    report: Callable[[Message], None],
) -> None:
    for _, process in workers.values():
        with contextlib.suppress(OSError):
            process.terminate()
    with _signals_held():
        while workers and _receive(workers, outcomes, report, _END_PATIENCE):
            pass
    for connection, (_, process) in workers.items():
        process.kill()
        process.join()
        connection.close()


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Let no second Ctrl-C interrupt the end; SIGKILL still does."""
    held = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, held)


def _exit_reason(exit_code: int | None) -> str:
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
    """Watch a VM; the main function of a process."""
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # A terminal sends it to all.
    _die_with(parent)
    _limit_memory()

    reporter = Reporter(name, connection.send, lambda: stopping)
    logging.basicConfig(handlers=[_LogHandler(reporter)])
    logging.captureWarnings(True)
    try:
        outcome = Watcher(name, socket, make_selection(), settings, reporter).run()
    except (KmemdumpError, OSError, MemoryError) as error:
        outcome = Outcome(problem=str(error) or type(error).__name__)
    except Exception as error:
        problem = f"a bug of kmemdump: {type(error).__name__}: {error}"
        outcome = Outcome(problem=f"{problem}\n{traceback.format_exc()}")
    connection.send(outcome)


class _LogHandler(logging.Handler):
    """Shows logs of drgn and others as status; a dead kernel makes them log much."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__()
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        self._reporter.show_status(self.format(record))


def _die_with(parent: int) -> None:
    """Have Linux kill this process when its parent's main thread ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # It is dead already.
        os.kill(os.getpid(), signal.SIGKILL)


def _limit_memory() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = _MAX_DATA if hard == resource.RLIM_INFINITY else min(hard, _MAX_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
