# SPDX-License-Identifier: GPL-2.0-or-later
"""
The prefixes that programs put before a line of the kernel log.

One line can have several: a relay's date, a host and ``kernel:``, a level, the time
since boot, the caller. The forms are those of the kernel's console (``print_prefix()``
in kernel/printk/printk.c), of ``dmesg`` (sys-utils/dmesg.c of util-linux), of
``journalctl -o`` (man journalctl) and of syslog (RFC 3164 and RFC 5424's dates).
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime

from kmemdump.formats.logged_line import (
    FACILITIES,
    FOREIGN,
    KERNEL,
    LEVELS,
    LoggedLine,
)

__all__ = ["parse_line", "parse_seconds"]

_DAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_MONTH = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_ISO = (
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?: ?(?:Z|UTC|[+-]\d\d:?\d\d))?"
)
_SINCE_BOOT = r"\[ *\d{1,9}\.\d{6}(?: <[ +]*-?\d+\.\d+>)?\]"

# A date that a relay or a reader of the log put first. In syslog and journalctl, host
# and program follow.
_RELAYED = re.compile(
    rf"\[?(?:(?P<iso>{_ISO})|{_DAY} (?P<full>{_ISO})"
    rf"|{_MONTH} [ \d]\d \d\d:\d\d:\d\d(?:\.\d+)?|\d{{9,11}}\.\d{{6}})\]?:? +"
)
_HOST = re.compile(
    r"(?P<host>[A-Za-z0-9][\w.:-]{0,254}(?<!:)) "
    r"(?P<program>kernel|[\w@/.+:\\-]{1,255}?(?=\[\d))(?:\[\d+\])?: ?"
)
_MONOTONIC = re.compile(
    rf"(?P<stamp>{_SINCE_BOOT}) (?P<host>[A-Za-z0-9][\w.:-]{{0,254}}) kernel: ?"
)
_PRIORITY = re.compile(r"<(\d{1,3})>")
_DECODED = re.compile(rf"({'|'.join(FACILITIES)}) *:({'|'.join(LEVELS)}) *: ?")
_STAMP = re.compile(rf"({_SINCE_BOOT}) ?")
_HUMAN = re.compile(
    rf"\[(?:{_DAY} )?{_MONTH} ?[ \d]\d \d\d:\d\d(?::\d\d(?: \d{{4}})?)?\] "
    r"|\[ *[+-] *\d+\.\d{6}\] "
    rf"|\[{_DAY} {_MONTH} [ \d]\d \d\d:\d\d:\d\d \d{{4}} <[ +]*-?\d+\.\d+>\] "
)
"""What ``dmesg`` prints with -T, -H, --reltime and -d in place of the time."""
_CALLER = re.compile(r"\[ *([TC]\d{1,10})\] ?")
_WITHIN = re.compile(r"\[(?=[ \d]{5}) *\d{1,9}\.\d{6}\]")
"""The kernel's own stamp, ``[%5lu.%06lu]``, after what others wrote in its line."""
_MAX_PREFIXES = 6


def parse_line(text: str, number: int) -> list[LoggedLine]:
    """
    Take the prefixes off a line.

    :param number: Of the line, for :attr:`LoggedLine.number`.
    :return: One line; or several, if the kernel wrote behind what somebody else wrote,
        as on a serial console. A line without any time or level is :data:`FOREIGN` only
        if something in it says so: the caller knows whether lines of this log have
        times.
    """
    relayed = _RELAYED.match(text) is not None
    line, text = _take_prefixes(LoggedLine("", number), text)
    # Behind a relay's date, each line is one program's.
    if line.facility != KERNEL or relayed:
        return [replace(line, text=text)]
    cuts = [match.start() for match in _WITHIN.finditer(text)]
    ends = [*cuts, len(text)]
    first, *others = (text[a:b] for a, b in zip([0, *cuts], ends, strict=True))
    found = [replace(line, text=first)] if first or not others else []
    for part in others:
        line, rest = _take_prefixes(LoggedLine("", number), part)
        found.append(replace(line, text=rest))
    return found


def parse_seconds(stamp: str) -> int:
    """Return the nanoseconds that a stamp such as ``[   12.345678]`` names."""
    seconds, _, fraction = stamp.strip("[] ").split("<")[0].strip().partition(".")
    return int(seconds) * 10**9 + int(fraction.ljust(9, "0")[:9])


def _take_prefixes(line: LoggedLine, text: str) -> tuple[LoggedLine, str]:
    for _ in range(_MAX_PREFIXES):
        found = _take_one(line, text)
        if found is None:
            break
        line, text = found
    return line, text


def _take_one(line: LoggedLine, text: str) -> tuple[LoggedLine, str] | None:
    """Return a line with what its first prefix says, and the text behind that."""
    if line.nanoseconds is None:
        if match := _MONOTONIC.match(text):
            nanoseconds = parse_seconds(match["stamp"])
            line = replace(line, nanoseconds=nanoseconds, host=match["host"])
            return line, text[match.end() :]
        if match := _STAMP.match(text):
            nanoseconds = parse_seconds(match[1])
            line = replace(line, nanoseconds=nanoseconds)
            text = text[match.end() :]
            if match := _CALLER.match(text):
                return replace(line, caller=match[1]), text[match.end() :]
            return line, text
        if match := _RELAYED.match(text):
            line = replace(line, date=_date(match["iso"] or match["full"]))
            text = text[match.end() :]
            # A date with a comma is dmesg's, whose lines name no host.
            host = None if "," in match[0] else _HOST.match(text)
            if host is None:
                return line, text
            facility = line.facility if host["program"] == "kernel" else FOREIGN
            line = replace(line, host=host["host"], facility=facility)
            return line, text[host.end() :]
        if match := _HUMAN.match(text):
            text = text[match.end() :]
            if match := _CALLER.match(text):
                return replace(line, caller=match[1]), text[match.end() :]
            return line, text
    if line.level is None:
        if match := _PRIORITY.match(text):
            priority = int(match[1])
            line = replace(line, level=priority & 7, facility=_facility(priority >> 3))
            return line, text[match.end() :]
        if match := _DECODED.match(text):
            level = LEVELS.index(match[2])
            facility = FACILITIES.index(match[1])
            line = replace(line, level=level, facility=facility)
            return line, text[match.end() :]
    return None


def _facility(number: int) -> int:
    return number if number < 24 else FOREIGN  # LOG_NFACILITIES


def _date(text: str | None) -> datetime | None:
    """Return a date in UTC; ``None`` if it names no time zone."""
    if not text:
        return None
    text = text.replace(",", ".").replace(" UTC", "+00:00").replace(" +", "+")
    match = re.match(r"(.*?\.\d{6})\d*(.*)", text)
    try:
        date = datetime.fromisoformat(match[1] + match[2] if match else text)
        return date.astimezone(UTC) if date.tzinfo is not None else None
    except (OverflowError, ValueError):
        return None
