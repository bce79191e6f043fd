# SPDX-License-Identifier: GPL-2.0-or-later
"""
Records as JSON; a report as JSON of version 1.

``report.schema.json`` beside this file describes version 1; the manual shows that file.
A field is absent if it could not be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from kmemdump.report.records import Findings

__all__ = ["VERSION", "to_json", "to_plain"]

VERSION = 1
_PLAIN = frozenset({str, int, float, bool, type(None)})
"""What most values are."""


def to_json(report: Findings) -> dict[str, Any]:
    """Return a report as a dictionary for :func:`json.dumps`."""
    return {"version": VERSION, **to_plain(report)}


def to_plain(value: Any) -> Any:
    """Return records as dictionaries and lists."""
    if type(value) in _PLAIN:
        return value
    if is_dataclass(value) and not isinstance(value, type):
        found = {}
        for item in fields(value):
            content = getattr(value, item.name)
            if content is not None:
                address = item.metadata.get("address")
                found[item.name] = f"{content:#x}" if address else to_plain(content)
        return found
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        known = {key: item for key, item in value._asdict().items() if item is not None}
        return to_plain(known)
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    return value
