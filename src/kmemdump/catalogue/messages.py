# SPDX-License-Identifier: GPL-2.0-or-later
"""
What a process that examines sources and its parent say to each other, over pipes.

A message is a JSON object, and bytes behind it. The parent trusts nothing in it: the
process reads hostile memory.
"""

from __future__ import annotations

import json
import os
import select
import struct
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kmemdump.catalogue.sources import Source
from kmemdump.errors import FormatError, TargetError

__all__ = ["LateError", "from_json", "receive", "send", "to_json"]

_HEADER = struct.Struct(">II")
MAX_JSON = 4 << 20
"""Bytes of JSON in a message."""
MAX_BYTES = 64 << 20
"""Bytes behind it."""


class LateError(TargetError):
    """Nothing came in time."""


def send(fd: int, message: Mapping[str, Any], data: bytes = b"") -> None:
    """
    Send a message.

    :raises OSError: If the other end is closed.
    """
    text = json.dumps(message, separators=(",", ":")).encode()
    whole = memoryview(_HEADER.pack(len(text), len(data)) + text + data)
    while whole:
        whole = whole[os.write(fd, whole) :]


def receive(
    fd: int, deadline: float | None = None
) -> tuple[dict[str, Any], bytes] | None:
    """
    Return a message; None if the other end is closed.

    :param deadline: On the monotonic clock.
    :raises LateError: If it is not there by then.
    :raises FormatError: If it is none.
    """
    head = _read(fd, _HEADER.size, deadline)
    if head is None:
        return None
    size, more = _HEADER.unpack(head)
    if size > MAX_JSON or more > MAX_BYTES:
        raise FormatError("an examining process", f"sends {size} + {more} bytes")
    text = _read(fd, size, deadline)
    data = _read(fd, more, deadline)
    if text is None or data is None:
        return None
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError("an examining process", f"sends no JSON: {error}") from error
    if not isinstance(message, dict):
        raise FormatError("an examining process", "sends no JSON object")
    return message, data


def _read(fd: int, count: int, deadline: float | None) -> bytes | None:
    found = bytearray()
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while len(found) < count:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and (left <= 0 or not poll.poll(left * 1000)):
            raise LateError("no answer in time")
        data = os.read(fd, min(count - len(found), 1 << 20))
        if not data:
            return None
        found += data
    return bytes(found)


def to_json(source: Source) -> dict[str, Any]:
    """Return a source as JSON has it."""
    modified = source.modified and source.modified.isoformat()
    return {
        "name": source.name,
        "size": source.size,
        "modified": modified,
        "local": source.local,
    }


def from_json(found: Mapping[str, Any]) -> Source:
    """Return the source of :func:`to_json`."""
    modified = found["modified"]
    return Source(
        found["name"],
        found["size"],
        modified and datetime.fromisoformat(modified),
        found["local"],
    )
