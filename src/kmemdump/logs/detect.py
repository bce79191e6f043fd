# SPDX-License-Identifier: GPL-2.0-or-later
"""Tell by its content what a file with a kernel log is written in."""

from __future__ import annotations

import re
from enum import Enum

from kmemdump.formats.console import decode_text
from kmemdump.formats.kmsg_records import KMSG_RECORD
from kmemdump.formats.sealed import is_sealed

__all__ = ["SAMPLE", "LogFormat", "detect_log"]

SAMPLE = 64 << 10
"""How many bytes are looked at."""
_CONTROL = re.compile(r"[^\t\n\r\f\x07\x08\x0e\x0f\x1b\x20-\x7e\x80-\U0010ffff]")
_BROKEN = re.compile(r"\\x[89a-f][0-9a-f]")
"""What was no UTF-8."""
_MAX_BROKEN = 0.25
"""Part of the characters: a line's noise damages few, a dump of memory has many."""
_OF_KERNEL = re.compile(
    r"\[(?=[ \d]{5}) *\d{1,9}\.\d{6}\]|^<\d{1,3}>|Linux version \d|Kernel panic - "
    r"|Call [Tt]race:|\bkernel: ",
    re.M,
)
_EXPORT = re.compile(rb"[A-Z_][A-Z0-9_]{2,63}=")
_JOURNAL = re.compile(rb'^(?:__CURSOR|__REALTIME_TIMESTAMP|_BOOT_ID)="?\w', re.M)
_JSON = re.compile(rb'\s*+(?:\x1e|data: |\[)?\s*+\{\s*+"')
_JSON_FIELD = re.compile(rb'"(?:__CURSOR|__REALTIME_TIMESTAMP|MESSAGE|_BOOT_ID)"\s*:')


class LogFormat(Enum):
    """How a log is written."""

    TEXT = "text"
    """Lines: dmesg, a serial console, journalctl, syslog, netconsole."""
    KMSG = "records of /dev/kmsg"
    """Extended netconsole, too."""
    JOURNAL_EXPORT = "journal export"
    JOURNAL_JSON = "journal as JSON"


def detect_log(head: bytes) -> LogFormat | None:
    """
    Return the format of a log.

    :param head: Its first :data:`SAMPLE` bytes, or all of it.
    :return: ``None`` if it is no text, or none that a kernel's log could be.
    """
    head = head[:SAMPLE]
    if not head.strip() or not _is_text(head):
        return None
    if head.startswith(b"OSRELEASE=") or is_sealed(head):
        return None  # VMCOREINFO, and what begins with a line of text.
    if _EXPORT.match(head) and _JOURNAL.search(head):
        return LogFormat.JOURNAL_EXPORT
    if _JSON.match(head) and _JSON_FIELD.search(head):
        return LogFormat.JOURNAL_JSON
    if KMSG_RECORD.search(head):
        return LogFormat.KMSG
    return LogFormat.TEXT


def _is_text(head: bytes) -> bool:
    if _EXPORT.match(head) and _JOURNAL.search(head):
        return True  # Values with a size before them may hold any bytes.
    # A character may be cut off at the end of the sample.
    text = decode_text(head[: len(head) - len(head) % 2])
    broken = len(_BROKEN.findall(text))
    bad = len(_CONTROL.findall(text)) + broken
    if bad and not _OF_KERNEL.search(text):
        return False  # What is no text at all must show that it is a log.
    # Four characters stand for a byte that was no UTF-8.
    return bad <= (len(text) - 3 * broken) * _MAX_BROKEN
