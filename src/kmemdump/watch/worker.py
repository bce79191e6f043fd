# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that watches one VM: both ends of it."""

from __future__ import annotations

import contextlib
import logging
import math
import resource
import signal
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

from kmemdump.bounded import let_go
from kmemdump.bounds.attempts import End
from kmemdump.bounds.call import cpu_of, end_with_parent
from kmemdump.bounds.page import StatePage
from kmemdump.bounds.shared_page import SharedPage
from kmemdump.bounds.start import start_process
from kmemdump.bounds.steps import Limits, Refusal, limit_process
from kmemdump.errors import KmemdumpError
from kmemdump.marking.selection import Selection
from kmemdump.sealing.memory import keep_off_disk
from kmemdump.watch.control.commands import Command
from kmemdump.watch.events import Event
from kmemdump.watch.reporter import Reporter
from kmemdump.watch.settings import Settings
from kmemdump.watch.sources import VmAddress
from kmemdump.watch.watcher import Outcome, Watcher

__all__ = ["Usage", "Worker", "worker_context"]


def worker_context() -> ForkServerContext:
    """Return how workers are started: from one process that has loaded the program."""
    context = ForkServerContext()
    context.set_forkserver_preload(["kmemdump.watch.preload"])
    return context


@dataclass(frozen=True, slots=True)
class Usage:
    """What a worker takes."""

    pid: int | None
    memory: int
    """Resident, in bytes."""
    cpu_seconds: float


class Worker:
    """
    The supervisor's end: a process that runs.

    :param address: The VM.
    :param make_selection: Returns what to mark; must be picklable.
    :param refused: Steps that it leaves out, since they ended one before it.
    :param held: Whether one before it was ended that had paused the VM for a moment.
    """

    def __init__(
        self,
        context: ForkServerContext,
        address: VmAddress,
        make_selection: Callable[[], Selection],
        settings: Settings,
        refused: Mapping[str, Refusal],
        held: bool,
    ) -> None:
        self.page: StatePage = SharedPage()
        """What the process does."""
        self.connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_work,
            args=(theirs, address, make_selection, settings, self.page, refused, held),
            name=f"kmemdump watch {address.name}",
            daemon=True,
        )
        try:
            start_process(self._process)
        except BaseException:
            self.page.close()
            raise
        finally:
            theirs.close()
        self.page.detach()

    def usage(self) -> Usage:
        """Return what it takes; zeros once it has ended."""
        pid = self._process.pid
        try:
            memory = Path(f"/proc/{pid}/statm").read_text().split()[1]
        except OSError:
            return Usage(pid, 0, 0.0)
        return Usage(pid, int(memory) * resource.getpagesize(), cpu_of(pid))

    def receive(self) -> Event | Outcome | None:
        """Return what it sent, or None if it has ended."""
        try:
            received: Event | Outcome = self.connection.recv()
        except (EOFError, OSError):
            return None
        return received

    def send(self, command: Command) -> bool:
        """Tell it what to do; return whether it can be told."""
        try:
            self.connection.send(command)
        except OSError:
            return False
        return True

    def terminate(self) -> None:
        """Let it end, which takes until its core image is written."""
        with contextlib.suppress(OSError):
            self._process.terminate()

    def kill(self) -> None:
        """End it now."""
        with contextlib.suppress(OSError):
            self._process.kill()

    def close(self) -> End:
        """Wait until it has ended; return how it did."""
        self.connection.close()
        self._process.join()
        end = End(self._process.exitcode or 0, self.page.step, self.page.held)
        self._process.close()
        self.page.close()
        return end


def _work(
    connection: Connection,
    address: VmAddress,
    make_selection: Callable[[], Selection],
    settings: Settings,
    page: StatePage,
    refused: Mapping[str, Refusal],
    held: bool,
) -> None:
    """Watch a VM; the main function of a process."""
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    def next_command() -> Command | None:
        nonlocal stopping
        try:
            command: Command | None = connection.recv() if connection.poll() else None
        except (EOFError, OSError):  # The supervisor has ended.
            stopping, command = True, None
        return command

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # A terminal sends it to all.
    end_with_parent(page)
    limit_process(page, Limits(settings.memory, settings.cpu), refused, cpu=math.inf)
    if settings.seal is not None:
        keep_off_disk()

    reporter = Reporter(address.name, connection.send, lambda: stopping, next_command)
    logging.basicConfig(handlers=[_LogHandler(reporter)])
    logging.captureWarnings(True)
    if held:
        let_go(address.spec)
    try:
        outcome = Watcher(address, make_selection(), settings, reporter).run()
    except (KmemdumpError, OSError, MemoryError) as error:
        outcome = Outcome(problem=str(error) or type(error).__name__)
    except Exception as error:
        problem = f"a bug of kmemdump: {type(error).__name__}: {error}"
        outcome = Outcome(problem=f"{problem}\n{traceback.format_exc()}")
    with contextlib.suppress(OSError):
        connection.send(outcome)


class _LogHandler(logging.Handler):
    """Shows logs of drgn and others as status; a dead kernel makes them log much."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__()
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        self._reporter.show_status(self.format(record))
