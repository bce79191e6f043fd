# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel log that was read, boot by boot."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from kmemdump.formats.console import screen_lines
from kmemdump.formats.log_prefix import parse_line
from kmemdump.formats.logged_line import FOREIGN, KERNEL, LoggedLine

__all__ = ["MAX_LINES", "LogText", "parse_text", "split_boots"]

MAX_LINES = 1_000_000
_BANNER = re.compile(r"Linux version \d+\.\d+|Booting Linux on physical CPU ")
"""The first lines of a boot; on Arm, the second one stands before the first."""
_JOURNAL_NOTE = re.compile(
    r"-- (?:Boot [0-9a-f]{32} --|Reboot --|(?:Logs begin|Journal begins) at |No entr)"
)
_HEADLINE = re.compile(
    r"# |(?:Panic|Oops|Emergency|Restart|Halt|Poweroff)#\d+ Part\d+$"
)
_INDENT = 12 * " "
"""
What dmesg, makedumpfile and crash put before the later lines of a record: as many
blanks as the time of its first line is wide, and this many at least.
"""
_MAX_HOSTS = 100
_ENOUGH_TIMES = 0.05
"""Of all lines with a time, above which those without are not the kernel's."""


@dataclass(frozen=True, slots=True)
class LogText:
    """A log, as far as it could be read."""

    name: str
    boots: tuple[tuple[LoggedLine, ...], ...]
    """The lines of each boot of a kernel, the oldest boot first; at least one boot."""
    lost: int = 0
    """Records between others that are not there."""
    problems: tuple[tuple[str, str], ...] = ()
    """What is missing, and why."""

    @property
    def is_marked(self) -> bool:
        """Whether a line has a time or a level, as a kernel's have."""
        return any(_is_marked(line) for boot in self.boots for line in boot)


def parse_text(text: str) -> list[LoggedLine]:
    """Parse the lines of a console, of dmesg, of journalctl or of syslog."""
    found: list[LoggedLine] = []
    boot = 0
    for number, line in screen_lines(text):
        if _JOURNAL_NOTE.match(line):
            boot += 1
            continue
        if not _HEADLINE.match(line):
            lines = parse_line(line, number)
            found += [replace(it, boot=str(boot)) for it in lines] if boot else lines
        if len(found) >= MAX_LINES:
            break
    return _judge(_without_programs(found))


def _without_programs(lines: Sequence[LoggedLine]) -> list[LoggedLine]:
    """Find programs' lines that journalctl shows like those of the kernel."""
    hosts = tuple(dict.fromkeys(f"{line.host} " for line in lines if line.host))
    hosts = hosts[:_MAX_HOSTS]
    return [
        replace(line, facility=FOREIGN)
        if hosts and not line.host and line.text.startswith(hosts)
        else line
        for line in lines
    ]


def _judge(lines: Sequence[LoggedLine]) -> list[LoggedLine]:
    """Find out which lines without a time are the kernel's."""
    kernels = [line for line in lines if line.facility == KERNEL]
    timed = sum(_is_marked(line) for line in kernels)
    if timed < max(3, len(lines) * _ENOUGH_TIMES):
        return list(lines)
    judged: list[LoggedLine] = []
    for line in lines:
        if line.facility != KERNEL or _is_marked(line) or line.date is not None:
            judged.append(line)
            continue
        before = judged[-1] if judged else None
        if before and before.facility == KERNEL and line.text.startswith(_INDENT):
            text = line.text.lstrip(" ")
            judged.append(replace(before, text=text, number=line.number))
        else:
            judged.append(replace(line, facility=FOREIGN))
    return judged


def _is_marked(line: LoggedLine) -> bool:
    return line.nanoseconds is not None or line.level is not None


def split_boots(lines: Sequence[LoggedLine]) -> tuple[tuple[LoggedLine, ...], ...]:
    """Split lines where a kernel began to boot, or where the format says so."""
    boots: list[tuple[LoggedLine, ...]] = []
    for _, group in groupby(lines, key=lambda line: line.boot):
        boots += _split_at_banners(list(group))
    return tuple(boots) or ((),)


def _split_at_banners(lines: list[LoggedLine]) -> list[tuple[LoggedLine, ...]]:
    starts = [0]
    last_banner = LoggedLine("", 0)
    first = next((i for i, it in enumerate(lines) if it.facility == KERNEL), 0)
    for i, line in enumerate(lines):
        if line.facility != KERNEL or not _BANNER.match(line.text):
            continue
        # Both of Arm's lines belong to one boot; a later time is a repeated banner, as
        # the one that a console shows when it is registered.
        other_line = last_banner.text[:7] != line.text[:7]
        again = last_banner.text and other_line and i - starts[-1] < 20
        later = line.nanoseconds is not None and line.nanoseconds > 10**9
        if not again and not later and i > first:
            starts.append(i)
        last_banner = line
    ends = [*starts[1:], len(lines)]
    return [tuple(lines[a:b]) for a, b in zip(starts, ends, strict=True)]
