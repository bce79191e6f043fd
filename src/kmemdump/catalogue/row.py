# SPDX-License-Identifier: GPL-2.0-or-later
"""
A row of the catalogue: one source, and what it says of a kernel's death.

:data:`COLUMNS` says what each column means; the schema of the Parquet files and the
manual are made from it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Self

from kmemdump.errors import FormatError
from kmemdump.text import printable
from kmemdump.version import VERSION as TOOL_VERSION

__all__ = [
    "COLUMNS",
    "UNREAD",
    "VERSION",
    "Column",
    "Row",
    "as_text",
    "check_content",
    "id_of_signature",
    "unread_content",
]

VERSION = 1
"""Of the schema. A new column needs no new version; a new meaning does."""
UNREAD = "unread:"
"""Begins :attr:`Row.content` of a source that could not be read."""
_CONTENT = re.compile(f"({UNREAD})?[0-9a-f]{{64}}")
_MAX_TEXT = 2000
"""Characters of a text; a hostile kernel's may be of any length."""
_MAX_ITEMS = 64


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the catalogue."""

    name: str
    kind: str
    """``text``, ``integer``, ``yes or no``, ``time`` (UTC) or ``texts``."""
    required: bool
    meaning: str


COLUMNS = tuple(
    Column(*it)
    for it in (
        (
            "content",
            "text",
            True,
            "SHA-256 of the source's bytes, in hexadecimal; unread: and a SHA-256 of "
            "its name if it could not be read. Identifies the row.",
        ),
        ("source", "text", True, "Path or URL of the source."),
        (
            "form",
            "text",
            False,
            "What the source is: core image, dump, log, event (of a watch), or sealed.",
        ),
        ("size", "integer", False, "Of the source, in bytes."),
        ("modified", "time", False, "When the source was last changed."),
        ("added", "time", True, "When the row was made."),
        ("added_by", "text", True, "Host name of the machine that added it."),
        (
            "died",
            "time",
            False,
            "When the kernel died: by the watcher's clock if one was there, else by "
            "the kernel's own.",
        ),
        ("kind", "text", False, "How it died, as in a report: panic, oops, hang, …"),
        ("signature", "text", False, "The same for two deaths of one bug."),
        ("signature_version", "integer", False, "Of the rules that made it."),
        (
            "signature_origin",
            "text",
            False,
            "What it was made of: log, stacks or words.",
        ),
        ("function", "text", False, "The function to blame."),
        ("module", "text", False, "Its module; absent for the kernel itself."),
        ("sentence", "text", False, "Why the kernel died, in one sentence."),
        ("frames", "texts", False, "The functions that matter, innermost first."),
        ("release", "text", False, "The kernel's, as uname -r prints it."),
        ("build_id", "text", False, "The kernel's."),
        ("architecture", "text", False, "As uname -m prints it."),
        ("machine", "text", False, "Name of the VM, else the kernel's host name."),
        ("hardware", "text", False, "Name of the hardware, as the kernel logs it."),
        (
            "death_id",
            "text",
            False,
            "The same for two core images of one dead kernel.",
        ),
        (
            "redacted",
            "text",
            False,
            "Names of the policies by which data was removed from the source.",
        ),
        (
            "complete",
            "yes or no",
            True,
            "Whether the report lacks nothing that was asked for.",
        ),
        ("problem", "text", False, "Why there is no report, or what it lacks."),
        ("tool", "text", True, "Version of kmemdump that made the row."),
        ("version", "integer", True, "Of this schema."),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One source. :data:`COLUMNS` has the meaning of each field."""

    content: str
    source: str
    added: datetime
    added_by: str
    form: str | None = None
    size: int | None = None
    modified: datetime | None = None
    died: datetime | None = None
    kind: str | None = None
    signature: str | None = None
    signature_version: int | None = None
    signature_origin: str | None = None
    function: str | None = None
    module: str | None = None
    sentence: str | None = None
    frames: tuple[str, ...] | None = None
    release: str | None = None
    build_id: str | None = None
    architecture: str | None = None
    machine: str | None = None
    hardware: str | None = None
    death_id: str | None = None
    redacted: str | None = None
    complete: bool = False
    problem: str | None = None
    tool: str = TOOL_VERSION
    version: int = VERSION

    def to_json(self) -> dict[str, Any]:
        """Return the fields that have a value, for :func:`json.dumps`."""
        found: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, datetime):
                value = value.astimezone(UTC).isoformat()
            elif isinstance(value, tuple):
                value = list(value)
            if value is not None:
                found[item.name] = value
        return found

    @classmethod
    def from_json(cls, found: Mapping[str, Any], where: str) -> Self:
        """
        Return the row with these fields; texts are made short and printable.

        :param where: Names the input, for messages.
        :raises FormatError: If a field is missing, or of another type.
        """
        values: dict[str, Any] = {}
        for column in COLUMNS:
            value = found.get(column.name)
            if value is not None:
                values[column.name] = _checked(column, value, where)
            elif column.required:
                raise FormatError(where, f"no {column.name}, expected {column.kind}")
        check_content(values["content"], where)
        return cls(**values)


def check_content(content: str, where: str) -> None:
    """
    Check what identifies a row, and is a part of names of files.

    :raises FormatError: If it is none.
    """
    if not _CONTENT.fullmatch(content):
        raise FormatError(where, f"content {content!r:.60}, expected a SHA-256")


def _checked(column: Column, value: object, where: str) -> object:
    match column.kind, value:
        case "text", str():
            return as_text(value)
        case "integer", int() if not isinstance(value, bool) and abs(value) < 1 << 63:
            return value
        case "yes or no", bool():
            return value
        case "time", str():
            try:
                return datetime.fromisoformat(value).astimezone(UTC)
            except (ValueError, OverflowError):
                pass
        case "texts", list() if all(isinstance(it, str) for it in value):
            return tuple(as_text(it) for it in value[:_MAX_ITEMS])
    raise FormatError(where, f"{column.name} {value!r:.60}, expected {column.kind}")


def as_text(text: str) -> str:
    """Return a text as it is stored: short, and harmless for a terminal."""
    return printable(text[:_MAX_TEXT])


def unread_content(source: str, host: str) -> str:
    """Return what stands for the content of a source that could not be read."""
    name = f"{host}\0{source}".encode(errors="surrogateescape")
    return UNREAD + hashlib.sha256(name).hexdigest()


def id_of_signature(signature: str) -> str:
    """Return the short name of a group, for command lines and files."""
    return hashlib.sha256(signature.encode()).hexdigest()[:12]
