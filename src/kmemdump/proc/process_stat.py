# SPDX-License-Identifier: GPL-2.0-or-later
"""``/proc/PID/stat``: the state of a process or thread (proc_pid_stat(5))."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from kmemdump.errors import FormatError

__all__ = ["ProcessStat", "parse_stat", "read_stat"]

_MAX_SIZE = 4096
"""Bytes; 52 numbers and a name of at most 64 bytes take a quarter."""
# The name may hold anything, also parentheses, blanks and newlines; what follows the
# last parenthesis is letters and numbers.
_STAT = re.compile(rb"\d{1,10} \((.*)\) ([A-Za-z])((?: -?\d{1,20}){19,})\n?", re.S)
_UTIME, _STIME, _STARTTIME = 14, 15, 22
"""Numbers of fields as the manual counts them."""
_FIRST = 4
"""Number of the first field after the state."""


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """A process or thread."""

    name: bytes
    """What it calls itself: any bytes, also newlines."""
    state: str
    """A letter, such as ``R`` for one that runs."""
    ticks: int
    """CPU time, in user mode (also a guest's) and in the kernel, in clock ticks."""
    started: int
    """When it was started, in clock ticks since the host's boot."""

    @property
    def cpu_seconds(self) -> float:
        """CPU time in seconds."""
        return self.ticks / os.sysconf("SC_CLK_TCK")

    @property
    def ended(self) -> bool:
        """Whether it has ended, and was not waited for."""
        return self.state in "ZXx"

    @property
    def stopped(self) -> bool:
        """Whether a signal, or a debugger, has stopped it."""
        return self.state in "Tt"


def parse_stat(data: bytes, source: str) -> ProcessStat:
    """
    Parse what ``/proc/PID/stat`` holds, or ``/proc/PID/task/TID/stat``.

    :raises FormatError: If it is something else.
    """
    match = _STAT.fullmatch(data)
    if match is None:
        raise FormatError(source, f"{data[:80]!r}, expected the state of a process")
    numbers = [int(it) for it in match[3].split()]
    return ProcessStat(
        match[1],
        match[2].decode(),
        numbers[_UTIME - _FIRST] + numbers[_STIME - _FIRST],
        numbers[_STARTTIME - _FIRST],
    )


def read_stat(
    path: str | os.PathLike[str], *, folder: int | None = None
) -> ProcessStat | None:
    """
    Read the state of a process or thread.

    :param path: Of the file, such as ``/proc/1/stat``.
    :param folder: Descriptor of the folder that a relative *path* starts from.
    :return: ``None`` if there is no such process, or it is not visible.
    :raises FormatError: If the file is something else.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
        with open(fd, "rb") as file:
            data = file.read(_MAX_SIZE)
    except OSError:
        return None
    return parse_stat(data, os.fspath(path))
