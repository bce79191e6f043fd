# SPDX-License-Identifier: GPL-2.0-or-later
"""
What a sealed core image says without a key: one line of text before a file of age.

The line is ``kmemdump-sealed/VERSION``, a blank and a JSON object. Behind it is a file
of age (https://age-encryption.org/v1), which holds the core image. A file of age
without such a line is sealed, too. docs/reference/core-image.rst describes the fields.

A reader ignores fields that it does not know and refuses a higher version. Whoever has
the file can change the line, so it is compared with the core image once that is open.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any, NamedTuple

from kmemdump.errors import FormatError
from kmemdump.text import printable

__all__ = [
    "AGE_MAGIC",
    "CLEAR_LIMIT",
    "ClearLine",
    "DeathTags",
    "Sealed",
    "find_sealed",
    "is_sealed",
]

AGE_MAGIC = b"age-encryption.org/v1\n"
_MAGIC = b"kmemdump-sealed/"
_VERSION = 1
CLEAR_LIMIT = 4096
"""Most bytes of the line and the beginning of the age file behind it."""
_MAX_LINE = CLEAR_LIMIT - len(AGE_MAGIC)
_MAX_TEXT = 512
"""Most characters of a field."""
_HEAD = re.compile(rb"kmemdump-sealed/([1-9]\d{0,8}) ")
_TAG = re.compile("[0-9a-f]{32}|")
_MAX_SIZE = 1 << 62


def is_sealed(head: bytes) -> bool:
    """Return whether a file that begins like this is sealed, damaged or not."""
    return head.startswith((AGE_MAGIC, _MAGIC))


class DeathTags(NamedTuple):
    """
    What the folder of core images needs to know of a death, for its owner only.

    Each is the same for two texts that are the same; which text it is, only the key of
    the folder tells. An empty text has an empty tag.
    """

    machine: str
    cause: str
    id: str


class ClearLine(NamedTuple):
    """The line before the age file."""

    release: str
    """Release of the kernel; empty if it is unknown."""
    time: datetime
    """When its memory was copied."""
    size: int
    """Size of the core image in bytes, once it is unsealed."""
    signature: str = ""
    """Of the death; empty unless whoever sealed it lets everybody see it."""
    tags: DeathTags | None = None
    """If a watch wrote it by itself."""

    def pack(self) -> bytes:
        """Return the line."""
        fields: dict[str, object] = {
            "release": self.release[:_MAX_TEXT],
            "time": self.time.astimezone(UTC).isoformat(),
            "size": self.size,
        }
        if self.signature:
            fields["signature"] = self.signature[:_MAX_TEXT]
        if self.tags is not None:
            fields["tags"] = list(self.tags)
        text = json.dumps(fields, separators=(",", ":"))
        line = b"%s%d %s\n" % (_MAGIC, _VERSION, text.encode("ascii"))
        if len(line) > _MAX_LINE:  # Two texts of characters that JSON escapes.
            return self._replace(release="", signature="").pack()
        return line


class Sealed(NamedTuple):
    """Where the age file in a sealed file begins, and what is said before it."""

    offset: int
    clear: ClearLine | None
    """``None`` if another program sealed it."""


def find_sealed(head: bytes, source: str) -> Sealed | None:
    """
    Return how a file is sealed.

    :param head: Its first :data:`CLEAR_LIMIT` bytes, or all of it.
    :param source: Its name, for messages.
    :return: ``None`` if it is not.
    :raises FormatError: If its line is damaged, or of a higher version.
    """
    if head.startswith(AGE_MAGIC):
        return Sealed(0, None)
    if not head.startswith(_MAGIC):
        return None
    match = _HEAD.match(head)
    if match is None:
        raise FormatError(source, "no version in the line before what is sealed")
    if int(match[1]) > _VERSION:
        raise FormatError(
            source,
            f"sealed in version {int(match[1])}, expected at most {_VERSION}: "
            "use the kmemdump that wrote it, or a newer one",
        )
    end = head.find(b"\n", 0, _MAX_LINE)
    if end < 0:
        raise FormatError(
            source, f"the line before what is sealed has more than {_MAX_LINE} bytes"
        )
    clear = _parse(head[match.end() : end], f"{source}: line 1")
    if not head.startswith(AGE_MAGIC, end + 1):
        raise FormatError(
            f"{source}+{end + 1:#x}", f"expected {AGE_MAGIC.decode().strip()}"
        )
    return Sealed(end + 1, clear)


def _parse(text: bytes, where: str) -> ClearLine:
    try:
        fields = json.loads(text.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise FormatError(where, f"no JSON: {printable(str(error))}") from None
    if not isinstance(fields, dict):
        raise FormatError(where, "no JSON object")
    size = fields.get("size")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < _MAX_SIZE:
        raise FormatError(f"{where}: size", "expected a number of bytes")
    return ClearLine(
        _text(fields, "release", where),
        _time(fields.get("time"), where),
        size,
        _text(fields, "signature", where),
        _tags(fields.get("tags"), where),
    )


def _text(fields: dict[str, Any], name: str, where: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise FormatError(
            f"{where}: {name}", f"expected a string of at most {_MAX_TEXT} characters"
        )
    return printable(value)


def _time(value: object, where: str) -> datetime:
    try:
        time = datetime.fromisoformat(value)  # type: ignore[arg-type]
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        pass
    raise FormatError(
        f"{where}: time", "expected a time with its zone, as 2025-04-22T11:31:00+00:00"
    )


def _tags(value: object, where: str) -> DeathTags | None:
    if value is None:
        return None
    if isinstance(value, list) and len(value) == len(DeathTags._fields):
        texts = [item for item in value if isinstance(item, str)]
        if len(texts) == len(value) and all(map(_TAG.fullmatch, texts)):
            return DeathTags(*texts)
    raise FormatError(f"{where}: tags", "expected three of 32 hexadecimal digits")
