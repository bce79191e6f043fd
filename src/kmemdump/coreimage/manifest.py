# SPDX-License-Identifier: GPL-2.0-or-later
"""
The manifest: a core image's description of itself, in a note of our own.

The note's desc is a JSON object in UTF-8. Addresses are strings in hexadecimal.
A reader ignores fields that it does not know and refuses a higher version.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

from kmemdump.errors import FormatError
from kmemdump.memory.ranges import ADDRESS_SPACE
from kmemdump.text import printable
from kmemdump.vmcoreinfo import RELEASE_LIMIT

__all__ = [
    "AreaRecord",
    "Death",
    "KernelRecord",
    "Manifest",
    "QuestionRecord",
    "RegionRecord",
]

VERSION = 1
MAX_BYTES = 32 << 20
"""Most bytes of JSON that are parsed."""
MAX_TEXT = 1 << 16
"""Longest string in characters; a longer one is cut when it is written."""
MAX_RECORDS = 1 << 18
"""Most entries of a list."""

_T = TypeVar("_T")
_OF_FIRMWARE = ("minidump", "kinfo")


class QuestionRecord(NamedTuple):
    """A question, and whether it can be answered."""

    text: str
    complete: bool
    """Whether everything that was read for the answer is in the core image."""
    reason: str = ""
    """Why it is not complete."""
    seconds: float = 0.0
    """How long the last answer took."""


class AreaRecord(NamedTuple):
    """An area, and whether it is complete."""

    name: str
    complete: bool
    reason: str = ""
    """Why it is not complete."""
    bytes: int = 0
    questions: Sequence[QuestionRecord] = ()


class RegionRecord(NamedTuple):
    """A region, and how much of it is in the core image."""

    id: int
    name: str
    address: int
    """Physical address in bytes."""
    size: int
    """Size in bytes."""
    captured: int
    """How many bytes of it are in the core image."""
    crc32: int
    """Checksum (that of zlib) of those bytes, in the order of their addresses."""
    virtual: int | None = None


class KernelRecord(NamedTuple):
    """The kernel that was looked at."""

    osrelease: str
    build_id: str | None
    """In hexadecimal."""
    machine: int
    """``e_machine`` of its ELF files."""


class Death(NamedTuple):
    """A death that a watcher saw; the fields are those of a manifest."""

    cause: str = ""
    """Why the core image is written, in words."""
    kind: str = ""
    """The same in one word: :class:`kmemdump.diagnosis.death_kind.DeathKind`."""
    signature: str = ""
    """The same for two deaths of one cause."""
    id: str = ""
    """
    The same for two looks at one dead kernel, and different for two deaths; empty if it
    could not be told.
    """
    vm: str = ""
    """Name of the VM; empty if a person asked for the core image."""


class Manifest(NamedTuple):
    """A core image's description of itself."""

    tool: str
    """Program and version that wrote it."""
    time: datetime
    """When its memory was copied."""
    kernel: KernelRecord
    backend: str = ""
    """Name of the backend that held the regions."""
    marked_at: datetime | None = None
    """When the regions were last marked before that."""
    cause: str = ""
    """Why it was written, as reported by the kernel's watcher."""
    death: str = ""
    """The same in one word: :class:`kmemdump.diagnosis.death_kind.DeathKind`."""
    signature: str = ""
    """The same for two deaths of one cause."""
    death_id: str = ""
    """The same for two looks at one dead kernel: :attr:`Death.id`."""
    vm: str = ""
    """Name of the VM, if a watcher wrote it by itself."""
    regions: Sequence[RegionRecord] = ()
    areas: Sequence[AreaRecord] = ()
    questions: Sequence[QuestionRecord] = ()
    """Questions outside areas."""
    redacted: str = ""
    """Names of the policies by which data was removed from it."""

    @property
    def by_firmware(self) -> bool:
        """Whether firmware copied the memory, after a reset of the machine."""
        return self.backend in _OF_FIRMWARE

    def to_json(self) -> bytes:
        """Return the desc of the note."""
        fields = {
            "version": VERSION,
            "tool": _clean(self.tool),
            "time": self.time.astimezone(UTC).isoformat(),
            "kernel": {
                "osrelease": _clean(self.kernel.osrelease),
                "build_id": self.kernel.build_id,
                "machine": self.kernel.machine,
            },
            "backend": _clean(self.backend),
            "marked_at": self.marked_at and self.marked_at.astimezone(UTC).isoformat(),
            "cause": _clean(self.cause),
            "death": _clean(self.death),
            "signature": _clean(self.signature),
            "death_id": _clean(self.death_id),
            "vm": _clean(self.vm),
            "areas": [
                {
                    "name": _clean(area.name),
                    "complete": area.complete,
                    "reason": _clean(area.reason),
                    "bytes": area.bytes,
                    "questions": [_from_question(item) for item in area.questions],
                }
                for area in self.areas
            ],
            "questions": [_from_question(item) for item in self.questions],
            "regions": [_from_region(region) for region in self.regions],
        }
        if self.redacted:
            fields["redacted"] = _clean(self.redacted)
        return json.dumps(fields, separators=(",", ":"), allow_nan=False).encode()

    @classmethod
    def from_json(cls, data: bytes, source: str) -> Manifest:
        """
        Parse the desc of the note.

        :param source: Name of the input, for messages.
        :raises FormatError: If it is not a manifest, or of a higher version.
        """
        if len(data) > MAX_BYTES:
            raise FormatError(
                source, f"{len(data)} bytes of JSON, expected at most {MAX_BYTES}"
            )
        try:
            value = json.loads(data.decode())
        except (ValueError, RecursionError) as error:
            raise FormatError(source, f"no JSON: {error}") from None
        fields = _Fields(value, source)
        version = fields.count("version")
        if version > VERSION:
            raise FormatError(
                source,
                f"version {version}, expected at most {VERSION}: "
                "use the kmemdump that wrote it, or a newer one",
            )
        return cls(
            tool=fields.text("tool"),
            time=fields.time("time"),
            kernel=_to_kernel(_Fields(fields.get("kernel"), f"{source}.kernel")),
            backend=fields.text("backend", ""),
            marked_at=fields.optional("marked_at", fields.time),
            cause=fields.text("cause", ""),
            death=fields.text("death", ""),
            signature=fields.text("signature", ""),
            death_id=fields.text("death_id", ""),
            vm=fields.text("vm", ""),
            regions=fields.records("regions", _to_region),
            areas=fields.records("areas", _to_area),
            questions=fields.records("questions", _to_question),
            redacted=fields.text("redacted", ""),
        )


class _Fields:
    """A JSON object whose fields are checked one by one."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise _wrong(where, value, "an object")
        self.value: dict[str, Any] = value
        self.where = where

    def get(self, name: str, default: object = None) -> Any:
        return self.value.get(name, default)

    def optional(self, name: str, parse: Callable[[str], _T]) -> _T | None:
        return None if self.get(name) is None else parse(name)

    def text(self, name: str, default: str | None = None) -> str:
        value = self.get(name, default)
        if not isinstance(value, str):
            raise self._wrong(name, "a string")
        if len(value) > MAX_TEXT:
            raise self._wrong(name, f"at most {MAX_TEXT} characters")
        # Not refused: the set of printable characters depends on Python's version.
        return printable(value, keep="\t\n")

    def flag(self, name: str) -> bool:
        value = self.get(name)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def count(self, name: str, default: int | None = None) -> int:
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(name, "an integer")
        if not 0 <= value < 1 << 64:
            raise self._wrong(name, "an unsigned 64-bit integer")
        return value

    def seconds(self, name: str) -> float:
        value = self.get(name, 0.0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(name, "a number")
        if not 0 <= value <= 1e12 or not math.isfinite(value):
            raise self._wrong(name, "a number of seconds")
        return float(value)

    def hexadecimal(self, name: str) -> int:
        value = self.get(name)
        if not isinstance(value, str) or not _HEX.fullmatch(value):
            raise self._wrong(name, "up to 16 hexadecimal digits after 0x")
        return int(value, 16)

    def time(self, name: str) -> datetime:
        value = self.get(name)
        try:
            time = datetime.fromisoformat(value)
            if time.tzinfo is not None:
                return time.astimezone(UTC)
        except (TypeError, ValueError, OverflowError):
            pass
        raise self._wrong(name, "a time with its zone, as 2025-04-22T11:31:00+00:00")

    def records(self, name: str, parse: Callable[[_Fields], _T]) -> tuple[_T, ...]:
        value = self.get(name, [])
        if not isinstance(value, list) or len(value) > MAX_RECORDS:
            raise self._wrong(name, f"a list of at most {MAX_RECORDS} objects")
        return tuple(
            parse(_Fields(item, f"{self.where}.{name}[{i}]"))
            for i, item in enumerate(value)
        )

    def _wrong(self, name: str, expected: str) -> FormatError:
        return _wrong(f"{self.where}.{name}", self.get(name), expected)


_HEX = re.compile("0x[0-9a-f]{1,16}")
_BUILD_ID = re.compile("(?:[0-9a-f]{2}){1,64}")


def _clean(text: str) -> str:
    """Escape characters that cannot be printed or encoded, and cut."""
    return printable(text, keep="\t\n")[:MAX_TEXT]


def _wrong(where: str, value: object, expected: str) -> FormatError:
    found = ascii(value if not isinstance(value, list | dict) else type(value).__name__)
    if len(found) > 40:
        found = f"{found[:37]}..."
    return FormatError(where, f"is {found}, expected {expected}")


def _from_question(question: QuestionRecord) -> dict[str, object]:
    return {
        "text": _clean(question.text),
        "complete": question.complete,
        "reason": _clean(question.reason),
        "seconds": question.seconds,
    }


def _from_region(region: RegionRecord) -> dict[str, object]:
    # captured and crc32 have a fixed width: the size of the note must be known
    # before the memory has been copied.
    fields = {
        "id": region.id,
        "name": _clean(region.name),
        "address": f"{region.address:#x}",
        "size": region.size,
        "captured": f"{region.captured:#018x}",
        "crc32": f"{region.crc32:#010x}",
    }
    if region.virtual is not None:
        fields["virtual"] = f"{region.virtual:#x}"
    return fields


def _to_kernel(fields: _Fields) -> KernelRecord:
    build_id = fields.optional("build_id", fields.text)
    if build_id is not None and not _BUILD_ID.fullmatch(build_id):
        raise _wrong(f"{fields.where}.build_id", build_id, "hexadecimal digits")
    release = fields.text("osrelease")[:RELEASE_LIMIT]
    return KernelRecord(release, build_id, fields.count("machine"))


def _to_question(fields: _Fields) -> QuestionRecord:
    return QuestionRecord(
        text=fields.text("text"),
        complete=fields.flag("complete"),
        reason=fields.text("reason", ""),
        seconds=fields.seconds("seconds"),
    )


def _to_area(fields: _Fields) -> AreaRecord:
    return AreaRecord(
        name=fields.text("name"),
        complete=fields.flag("complete"),
        reason=fields.text("reason", ""),
        bytes=fields.count("bytes", 0),
        questions=fields.records("questions", _to_question),
    )


def _to_region(fields: _Fields) -> RegionRecord:
    region = RegionRecord(
        id=fields.count("id"),
        name=fields.text("name"),
        address=fields.hexadecimal("address"),
        size=fields.count("size"),
        captured=fields.hexadecimal("captured"),
        crc32=fields.hexadecimal("crc32"),
        virtual=fields.optional("virtual", fields.hexadecimal),
    )
    if region.address + region.size > ADDRESS_SPACE:
        raise _wrong(f"{fields.where}.size", region.size, "no wrap-around")
    return region
