# SPDX-License-Identifier: GPL-2.0-or-later
"""A line of a kernel log, as every format of logs gives it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

__all__ = ["FACILITIES", "FOREIGN", "KERNEL", "LEVELS", "MAX_LINE", "LoggedLine"]

KERNEL = 0
"""Facility of the kernel, include/linux/syslog.h of libc."""
FOREIGN = 1
"""
Facility of programs: here, of every line that is not proven to be the kernel's, such as
those that firmware and login prompts leave on a serial console.
"""
MAX_LINE = 16 << 10
"""Most characters of a line; the kernel's own limit is 2 KiB (PRINTKRB_RECORD_MAX)."""

LEVELS = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")
"""Names of levels, as ``dmesg --decode`` prints them."""
FACILITIES = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp"),
    *("cron", "authpriv", "ftp"),
)
"""The same for facilities."""


@dataclass(frozen=True, slots=True)
class LoggedLine:
    """One line. A field is ``None`` if the log does not say it."""

    text: str
    """Without its prefix."""
    number: int
    """Of the line in what was read, from 1."""
    nanoseconds: int | None = None
    """Since boot."""
    date: datetime | None = None
    """With its time zone; not set if the log does not name one."""
    level: int | None = None
    facility: int = KERNEL
    caller: str | None = None
    """Who logged it: ``T123``, a thread, or ``C1``, a CPU."""
    host: str | None = None
    boot: str | None = None
    """Something that differs between two boots, if the format has it."""
