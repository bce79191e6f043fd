# SPDX-License-Identifier: GPL-2.0-or-later
"""
Records of /dev/kmsg, which are also the packets of extended netconsole.

Documentation/ABI/testing/dev-kmsg and Documentation/networking/netconsole.rst of the
kernel: ``priority,sequence,microseconds,flags[,key=value];text``, then a line for each
property of the device, which begins with a blank. netconsole can put the kernel's
release first, and splits what is longer than a packet: ``ncfrag=OFFSET/TOTAL``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from kmemdump.formats.logged_line import FOREIGN, LoggedLine

__all__ = ["KMSG_RECORD", "KmsgLog", "parse_kmsg"]

_RELEASE = rb"(?:\d{1,5}\.\d{1,5}[\w.+~-]{0,100},)?"
_NUMBERS = _RELEASE + rb"\d{1,5},\d{1,19},\d{1,16},[-c+]"
_MORE = rb"(?:,[^,;\n]{0,200}){0,8}"
_AT_START = rb"(?:(?<=\n)|\A)"
KMSG_RECORD = re.compile(_AT_START + _NUMBERS + _MORE + b";")
"""The head of a record, at the start of a line."""
_ANY = re.compile(
    KMSG_RECORD.pattern
    # A packet with a fragment ends anywhere, so that the next begins in its line.
    + b"|"
    + _NUMBERS
    + rb"(?:,[^,;\n]{0,200}){0,7},ncfrag=\d{1,6}/\d{1,6}"
    + _MORE
    + b";"
)
_HEAD = re.compile(
    _RELEASE + rb"(?P<priority>\d+),(?P<sequence>\d+),(?P<time>\d+),[-c+](?P<more>.*);"
)
_CALLER = re.compile(rb",caller=([TC]\d+)")
_PART = re.compile(rb",ncfrag=(\d+)/(\d+)")
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")
_MAX_FRAGMENTED = 64 << 10
_RESTART = 1000
"""A sequence number that is smaller by this is that of another boot."""


@dataclass(frozen=True, slots=True)
class KmsgLog:
    """The records that arrived."""

    lines: tuple[LoggedLine, ...]
    lost: int
    """Records that did not arrive, between two that did."""
    cut: int
    """Records of which a part did not arrive."""


@dataclass(slots=True)
class _Record:
    number: int
    priority: int
    sequence: int
    microseconds: int
    caller: str | None
    pieces: dict[int, bytes]
    """Parts of its text by their offsets."""
    total: int | None
    boot: int


def parse_kmsg(data: bytes) -> KmsgLog:
    """
    Parse records in any order, repeated or in parts.

    What is no record, such as lines of a console, is left out.
    """
    records = _records(data)
    ordered = sorted(records.values(), key=lambda it: (it.boot, it.sequence))
    lines: list[LoggedLine] = []
    lost = cut = 0
    before: _Record | None = None
    for record in ordered:
        if before is not None and before.boot == record.boot:
            lost += record.sequence - before.sequence - 1
        before = record
        text, whole = _join(record)
        cut += not whole
        lines += _lines(record, text)
    return KmsgLog(tuple(lines), lost, cut)


def _records(data: bytes) -> dict[tuple[int, int], _Record]:
    records: dict[tuple[int, int], _Record] = {}
    matches = list(_ANY.finditer(data))
    boot = newest = number = place = 0
    for match, after in zip(matches, [*matches[1:], None], strict=True):
        number += data.count(b"\n", place, match.start())
        place = match.start()
        body = data[match.end() : after.start() if after else len(data)]
        head = _HEAD.fullmatch(match[0])
        if head is None:
            continue
        sequence = int(head["sequence"])
        if sequence + _RESTART < newest:
            boot, newest = boot + 1, sequence
        newest = max(newest, sequence)
        part = _PART.search(head["more"])
        offset, total = (int(part[1]), int(part[2])) if part else (0, None)
        if total is not None and not offset < total <= _MAX_FRAGMENTED:
            continue
        caller = _CALLER.search(head["more"])
        record = records.setdefault(
            (boot, sequence),
            _Record(
                number + 1,
                int(head["priority"]),
                sequence,
                int(head["time"]),
                caller[1].decode() if caller else None,
                {},
                total,
                boot,
            ),
        )
        record.pieces.setdefault(offset, body)
    return records


def _join(record: _Record) -> tuple[bytes, bool]:
    """Return a record's text with its properties, and whether it is whole."""
    if record.total is None:
        return record.pieces[0], True
    joined = b""
    places = sorted(record.pieces)
    for place, after in zip(places, [*places[1:], record.total], strict=True):
        if place != len(joined):
            return joined + b" [...]", False
        # A receiver may have added a line feed to each packet.
        joined += record.pieces[place].rstrip(b"\n\0")[: after - place]
    # The last packet may end in a line feed that is not the receiver's.
    return joined, len(joined) >= record.total - 1


def _lines(record: _Record, text: bytes) -> Iterable[LoggedLine]:
    first = text.partition(b"\n")[0].rstrip(b"\r\0")
    plain = _ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode()), first)
    facility = record.priority >> 3
    for line in plain.decode("utf-8", "backslashreplace").split("\n"):
        yield LoggedLine(
            line,
            record.number,
            record.microseconds * 1000,
            level=record.priority & 7,
            facility=facility if facility < 24 else FOREIGN,
            caller=record.caller,
            boot=str(record.boot) if record.boot else None,
        )
