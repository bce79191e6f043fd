# SPDX-License-Identifier: GPL-2.0-or-later
"""Measuring whole processes."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

__all__ = ["Cost", "cpu_seconds", "in_turn", "middle", "run"]


@dataclass(frozen=True, slots=True)
class Cost:
    """What something cost."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds of user and system time; 0 if unknown."""
    peak: int = 0
    """Peak resident memory in bytes; 0 if unknown."""
    output: str = ""
    problem: str = ""
    """Why there is nothing to compare."""


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
    timeout: float = 300,
) -> Cost:
    """
    Run a program to its end.

    :param stdin: What it reads from standard input.
    :param environment: Added to our own.
    :param timeout: Seconds after which it is killed.
    """
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
        given.write(stdin.encode())
        given.seek(0)
        start = time.monotonic()
        process = subprocess.Popen(
            [os.fspath(argument) for argument in argv],
            stdin=given,
            stdout=said,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
        timer = threading.Timer(timeout, process.kill)
        timer.start()
        # Not Popen.wait(), which drops the resource usage of the process.
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - start
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        output = said.read().decode(errors="replace")
    problem = ""
    if process.returncode == -signal.SIGKILL:
        problem = f"did not end in {timeout:.0f} s"
    elif process.returncode:
        lines = output.strip().splitlines() or ["nothing"]
        problem = f"exit status {process.returncode}: {lines[-1]}"
    cpu = usage.ru_utime + usage.ru_stime
    return Cost(wall, cpu, usage.ru_maxrss << 10, output, problem)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process used up to now, in seconds."""
    # The name, in parentheses, may hold spaces; utime and stime are fields 14 and 15.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def middle(measure: Callable[[], Cost], runs: int) -> Cost:
    """
    Measure several times.

    :return: The medians; the first problem, if there was one.
    """
    return in_turn([measure], runs)[0]


def in_turn(measures: Sequence[Callable[[], Cost]], runs: int) -> list[Cost]:
    """
    Measure several things in turn, in several rounds.

    The speed of a machine that others use, too, varies, so measure at the same time
    what is to be compared.

    :return: As :func:`middle` for each.
    """
    costs: list[list[Cost]] = [[] for _ in measures]
    for _ in range(runs):
        for measure, so_far in zip(measures, costs, strict=True):
            if not so_far or not so_far[-1].problem:
                so_far.append(measure())
    return [_median(several) for several in costs]


def _median(costs: Sequence[Cost]) -> Cost:
    if costs[-1].problem:
        return costs[-1]
    return Cost(
        median(cost.wall for cost in costs),
        median(cost.cpu for cost in costs),
        max(cost.peak for cost in costs),
        costs[-1].output,
    )
