# SPDX-License-Identifier: GPL-2.0-or-later
"""
Entries of systemd's journal, as ``journalctl -o export`` and ``-o json`` write them.

https://systemd.io/JOURNAL_EXPORT_FORMATS/. Only what the kernel logged is kept as its
own; the entries of programs are foreign.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

from kmemdump.errors import FormatError
from kmemdump.formats.logged_line import FOREIGN, KERNEL, MAX_LINE, LoggedLine

__all__ = ["parse_journal_export", "parse_journal_json"]

_MAX_FIELD = 64 << 20
_MAX_FIELDS = 10_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_MICROSECONDS = 1 << 57
"""In the year 6531; datetime ends in 9999."""
_WANTED = frozenset(
    (
        "MESSAGE",
        "PRIORITY",
        "SYSLOG_FACILITY",
        "_TRANSPORT",
        "_SOURCE_MONOTONIC_TIMESTAMP",
        "__MONOTONIC_TIMESTAMP",
        "__REALTIME_TIMESTAMP",
        "_BOOT_ID",
        "_HOSTNAME",
    )
)
_NAME = re.compile(rb"[A-Z0-9_]{1,64}")


def parse_journal_export(data: bytes, source: str) -> list[LoggedLine]:
    """
    Parse the export format.

    The last entry may be cut off: the export of a machine that was dying.

    :raises FormatError: If a line is no field.
    """
    lines: list[LoggedLine] = []
    fields: dict[str, bytes] = {}
    at, number, first = 0, 0, 1
    while at < len(data):
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        line = data[at:end]
        number += 1
        if not line.strip(b"\r"):
            lines += _entry(fields, first)
            fields, first = {}, number + 1
            at = end + 1
            continue
        name, equals, value = line.partition(b"=")
        if not _NAME.fullmatch(name):
            raise FormatError(
                source,
                f"line {number}: {line[:40]!r}, expected FIELD=VALUE of a journal "
                "export",
            )
        at = end + 1
        if not equals:
            value, at = _sized(data, at, source, number)
            number += value.count(b"\n") + 1
        if len(fields) < _MAX_FIELDS and name.decode() in _WANTED:
            fields.setdefault(name.decode(), value)
    return [*lines, *_entry(fields, first)]


def _sized(data: bytes, at: int, source: str, number: int) -> tuple[bytes, int]:
    """Return a value with its size before it, and where the next line begins."""
    size = int.from_bytes(data[at : at + 8], "little")
    if size > _MAX_FIELD:
        raise FormatError(
            source,
            f"line {number}: field of {size} bytes, expected at most {_MAX_FIELD}",
        )
    return data[at + 8 : at + 8 + size], at + 8 + size + 1


def parse_journal_json(text: str, source: str) -> list[LoggedLine]:
    """
    Parse ``-o json``, ``json-pretty``, ``json-seq`` or ``json-sse``.

    :raises FormatError: If it is no series of JSON objects, but for a last one that is
        cut off.
    """
    decoder = json.JSONDecoder()
    lines: list[LoggedLine] = []
    text = re.sub(r"^data: ", "", text, flags=re.M).replace("\x1e", "")
    at, number, counted = 0, 1, 0
    space = re.compile(r"[\s,\[\]]*")
    while True:
        match = space.match(text, at)
        at = match.end() if match else at
        if at >= len(text):
            return lines
        number += text.count("\n", counted, at)
        counted = at
        try:
            entry, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            if lines and "\n{" not in text[at + 1 :]:
                return lines
            raise FormatError(source, f"line {number}: no JSON ({error})") from error
        if not isinstance(entry, dict):
            raise FormatError(
                source,
                f"line {number}: {type(entry).__name__}, expected an object of "
                "journalctl -o json",
            )
        fields = {name: _bytes(entry[name]) for name in _WANTED & entry.keys()}
        lines += _entry(fields, number)


def _bytes(value: object) -> bytes:
    """Return a value, which is an array of numbers if it is no text."""
    if isinstance(value, list) and value:
        if all(isinstance(item, int) and 0 <= item < 256 for item in value):
            return bytes(value)
        return _bytes(value[0])  # The field occurs several times.
    return value.encode("utf-8", "replace") if isinstance(value, str) else b""


def _entry(fields: Mapping[str, bytes], number: int) -> Iterator[LoggedLine]:
    if "MESSAGE" not in fields:
        return
    kernel = fields.get("_TRANSPORT", b"kernel") == b"kernel"
    facility = _number(fields, "SYSLOG_FACILITY") or KERNEL
    if not kernel or facility > 23:
        facility = max(min(facility, 23), FOREIGN)
    monotonic = _number(fields, "_SOURCE_MONOTONIC_TIMESTAMP", "__MONOTONIC_TIMESTAMP")
    date = _number(fields, "__REALTIME_TIMESTAMP")
    level = _number(fields, "PRIORITY")
    message = fields["MESSAGE"].decode("utf-8", "backslashreplace")
    for text in message.split("\n"):
        yield LoggedLine(
            text[:MAX_LINE],
            number,
            None if monotonic is None else monotonic * 1000,
            None if date is None else _EPOCH + timedelta(microseconds=date),
            level if level is not None and level < 8 else None,
            facility,
            host=_word(fields, "_HOSTNAME"),
            boot=_word(fields, "_BOOT_ID"),
        )


def _number(fields: Mapping[str, bytes], *names: str) -> int | None:
    for name in names:
        value = fields.get(name, b"")
        if value.isdigit() and len(value) < 20 and int(value) < _MAX_MICROSECONDS:
            return int(value)
    return None


def _word(fields: Mapping[str, bytes], name: str) -> str | None:
    value = fields.get(name)
    return value[:255].decode("utf-8", "backslashreplace") if value else None
