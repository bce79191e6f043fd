# SPDX-License-Identifier: GPL-2.0-or-later
"""Deaths in the output of ``watch --json``: core images, and deaths without one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from kmemdump.catalogue.row import VERSION as ROW_VERSION
from kmemdump.catalogue.row import Row
from kmemdump.catalogue.sources import Source, find_file
from kmemdump.errors import FormatError
from kmemdump.version import VERSION

__all__ = ["MAX_LINE", "read_events"]

MAX_LINE = 1 << 20
"""Bytes of a line, at most."""
_MAX_LINES = 10_000_000


def read_events(
    lines: Iterable[bytes], host: str, is_gone: Callable[[str], bool]
) -> tuple[list[Source], list[tuple[str, Row]]]:
    """
    Return the core images of deaths, and rows of the deaths that have none now.

    Events of other kinds are passed over.

    :param lines: Of ``watch --json``.
    :param host: Name of this machine.
    :param is_gone: Returns whether a core image is not there any more.
    :return: With each row the path of the core image that is gone, if there was one.
    :raises FormatError: If a line is no event.
    """
    sources: list[Source] = []
    rows: list[tuple[str, Row]] = []
    for number, line in enumerate(lines, 1):
        where = f"events, line {number}"
        if number > _MAX_LINES or len(line) > MAX_LINE:
            raise FormatError(where, "too long")
        if not line.strip():
            continue
        try:
            event = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise FormatError(where, f"no JSON: {error}") from None
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise FormatError(where, "no event, expected a line of 'watch --json'")
        if event["event"] != "death":
            continue
        core = event.get("core")
        if not isinstance(core, str):
            problem = "no core image was written"
        elif is_gone(core):
            problem = "its core image is gone"  # It was one too many, or is moved.
        else:
            sources.append(find_file(core))
            continue
        path = os.path.abspath(core) if isinstance(core, str) else ""
        rows.append((path, _row(event, host, line, where, problem)))
    return sources, rows


def _row(
    event: Mapping[str, Any], host: str, line: bytes, where: str, problem: str
) -> Row:
    found = {
        "content": hashlib.sha256(line.strip()).hexdigest(),
        "source": f"watch of {event.get('vm', '?')}",
        "form": "event",
        "added": datetime.now(UTC).isoformat(),
        "added_by": host,
        "died": event.get("time"),
        "kind": event.get("kind"),
        "signature": event.get("signature"),
        "signature_version": event.get("signature_version"),
        "signature_origin": event.get("signature_source"),
        "sentence": event.get("cause"),
        "release": event.get("release"),
        "machine": event.get("vm"),
        "complete": False,
        "problem": problem,
        "tool": VERSION,
        "version": ROW_VERSION,
    }
    return Row.from_json(found, where)
