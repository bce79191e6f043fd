# SPDX-License-Identifier: GPL-2.0-or-later
"""
Check targets, each in a process of its own, a few at a time.

A guest that lies about its memory, or makes drgn crash, harms only the process that
checks it, which has limits of memory and time.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess

from kmemdump.bounds.attempts import End
from kmemdump.bounds.page import StatePage
from kmemdump.bounds.start import start_process
from kmemdump.bounds.steps import Limits, limit_process
from kmemdump.checks.findings import Findings
from kmemdump.checks.point import Check, Point
from kmemdump.checks.wanted import Wanted
from kmemdump.errors import KmemdumpError
from kmemdump.opening import open_target
from kmemdump.sealing.memory import keep_off_disk
from kmemdump.targets.live import LiveTarget
from kmemdump.text import printable
from kmemdump.watch.control.client import find_watch

__all__ = ["run_checks"]

_KINDS = (
    "kmemdump.checks.this_machine",
    "kmemdump.checks.vm",
    "kmemdump.checks.watched",
)
_AT_ONCE = 8
_END_PATIENCE = 5.0
"""Seconds that a process has to end; it may have stopped its VM for its registers."""


@dataclass(slots=True)
class _Running:
    target: str
    process: ForkServerProcess
    deadline: float
    points: list[Point] = field(default_factory=list)
    check: Check | None = None


def run_checks(
    targets: Sequence[str],
    make_wanted: Callable[[], Wanted],
    show: Callable[[str, Point], None],
    limits: Limits,
) -> list[Check]:
    """
    Check targets.

    :param targets: As :func:`expand_targets` returns them.
    :param make_wanted: Returns what a death should leave; must be picklable, because
        each process calls it.
    :param show: Called with a target's name and each point, when it is found.
    :param limits: Of each target's process.
    :return: A result for each target, in their order.
    """
    context = ForkServerContext()  # One process loads the program for all of them.
    context.set_forkserver_preload(list(_KINDS))
    places = max(1, min(_AT_ONCE, os.cpu_count() or 1))
    waiting = list(reversed(targets))
    running: dict[Connection, _Running] = {}
    results: dict[str, Check] = {}
    try:
        while waiting or running:
            while waiting and len(running) < places:
                target = waiting.pop()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(
                    target=_work,
                    args=(theirs, target, make_wanted, limits),
                    daemon=True,
                )
                start_process(process)
                theirs.close()
                deadline = time.monotonic() + limits.seconds
                running[ours] = _Running(target, process, deadline)
            for check in _receive(running, show, limits):
                results[check.target] = check
    finally:
        for connection, item in running.items():
            _end(connection, item)
    return [results[target] for target in targets]


def _receive(
    running: dict[Connection, _Running],
    show: Callable[[str, Point], None],
    limits: Limits,
) -> Iterator[Check]:
    """Take the processes' messages; yield the results of those that ended."""
    now = time.monotonic()
    first = min(item.deadline for item in running.values())
    ready = wait(list(running), max(first - now, 0.0))
    for connection, item in list(running.items()):
        problem = ""
        if connection in ready:
            try:
                message = connection.recv()
            except (EOFError, OSError):
                item.process.join()
                problem = f"its process died ({End(item.process.exitcode or 0)})"
            else:
                if isinstance(message, Point):
                    item.points.append(message)
                    show(item.target, message)
                else:
                    item.check = message
        elif time.monotonic() > item.deadline:
            problem = f"not checked in {limits.seconds:.0f} s"
        if problem or item.check is not None:
            del running[connection]
            _end(connection, item)
            yield item.check or Check(item.target, tuple(item.points), error=problem)


def _end(connection: Connection, item: _Running) -> None:
    if item.check is None:
        item.process.terminate()
    item.process.join(_END_PATIENCE)
    item.process.kill()
    item.process.join()
    connection.close()


def _work(
    connection: Connection,
    target: str,
    make_wanted: Callable[[], Wanted],
    limits: Limits,
) -> None:
    """Check a target; the main function of a process."""
    # It lets its VM run again, if it had stopped it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    limit_process(StatePage(), limits, {})
    logging.getLogger().addHandler(logging.NullHandler())  # Points say what matters.
    findings = Findings(target, connection.send)
    problem = None
    try:
        wanted = make_wanted()
        if wanted.seal is not None:
            keep_off_disk()
        _check(target, wanted, findings)
    except KeyboardInterrupt:
        return
    except (KmemdumpError, OSError, MemoryError) as error:
        problem = printable(str(error) or type(error).__name__, keep="\n")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection.send(replace(findings.check, error=problem))


def _check(target: str, wanted: Wanted, findings: Findings) -> None:
    from kmemdump.checks.this_machine import check_this_machine
    from kmemdump.checks.vm import check_vm
    from kmemdump.checks.watched import check_watched
    from kmemdump.targets.vm import VmTarget

    if wanted.run_folder is not None:
        watch = find_watch(wanted.run_folder, target)
        if watch is not None:
            check_watched(*watch, wanted, findings)
            return
    with open_target(target) as opened:
        if isinstance(opened, LiveTarget):
            check_this_machine(opened, wanted, findings)
        elif isinstance(opened, VmTarget):
            check_vm(opened, wanted, findings)
        else:
            raise KmemdumpError(f"{target}: neither a VM nor this machine")
