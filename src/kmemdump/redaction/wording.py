# SPDX-License-Identifier: GPL-2.0-or-later
"""What a redaction did, as text and as JSON; nothing that was removed is in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from kmemdump.redaction.changes import Change
from kmemdump.redaction.redact import Redacted

__all__ = ["to_json", "to_text"]

VERSION = 1
_COLUMN = 22


def to_json(found: Redacted) -> dict[str, Any]:
    """Return what was done, as input for :func:`json.dumps`."""
    return {
        "version": VERSION,
        "policy": found.policy.name,
        "passes": found.passes,
        "removed": [asdict(item) for item in found.removed],
        "registers": found.registers,
        "text_in_slack": found.text_in_slack,
        "kept_text": [
            {"kind": it.kind, "meaning": it.meaning, "bytes": it.bytes}
            for it in found.kept
        ],
        "kept_structure": found.structure,
        "answers": [{"how": how(it), **asdict(it)} for it in found.changes],
        "not_asked": list(found.unasked),
        "problems": list(found.problems),
    }


def how(change: Change) -> str:
    """Return in a word how an answer changed."""
    if change.problem is not None:
        return "lost" if not change.lines else "incomplete"
    return "same" if change.same else "changed"


def to_text(found: Redacted) -> str:
    """Return what was done, as text."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Redacted) -> Iterator[str]:
    policy = found.policy
    yield f"Policy {policy.name}: {policy.summary}"
    yield ""
    yield "Removed"
    for item in found.removed:
        places = f" in {item.places:,} places" if item.places else ""
        yield f"  {item.kind:<{_COLUMN}} {item.bytes:>10,} bytes{places}"
        if item.kind == "slack" and found.text_in_slack:
            yield f"  {'':<{_COLUMN}} {found.text_in_slack:>10,} of them were text"
    if found.registers:
        yield f"  {'registers':<{_COLUMN}} {found.registers:>10,}"
    if not found.removed and not found.registers:
        yield "  nothing: it was redacted by this policy before"
    yield ""
    yield "Left"
    for item in found.kept:
        yield f"  {item.kind:<{_COLUMN}} {item.bytes:>10,} bytes of text"
    yield f"  {'numbers, addresses':<{_COLUMN}} {found.structure:>10,} bytes"
    yield ""
    same = [it for it in found.changes if how(it) == "same"]
    yield f"Answers, all asked again: {len(same)} of {len(found.changes)} are the same"
    for change in found.changes:
        if how(change) == "same":
            continue
        name = f"{change.area}: {change.question}"
        yield f"  {name:<34} {_difference(change)}"
    for text in found.unasked:
        yield f"  {text}: not asked, so its memory is removed; give it with --ask"


def _difference(change: Change) -> str:
    parts = []
    if change.changed:
        parts.append(f"{change.changed} of {change.lines} lines differ")
    if change.gone:
        parts.append(f"{change.gone} lines are gone")
    if change.problem is not None:
        parts.append(f"{how(change)}: {change.problem}")
    return "; ".join(parts) or "is answered now"
