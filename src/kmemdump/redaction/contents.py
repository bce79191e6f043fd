# SPDX-License-Identifier: GPL-2.0-or-later
"""Which kinds of data a core image holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kmemdump.areas import AREAS
from kmemdump.areas.contents import KINDS, kinds_of_areas
from kmemdump.errors import UnsupportedError
from kmemdump.redaction.policy import POLICIES, Action, load_policy
from kmemdump.targets import Target
from kmemdump.targets.vmcore import core_of

__all__ = ["Contents", "KindOfData", "contents_of"]

_WORDS = {
    Action.KEEP: "stays",
    Action.PATTERNS: "stays, but for what patterns match",
    Action.WORDS: "is masked, but for the kernel's own words",
    Action.MASK: "is masked",
    Action.ZERO: "is zero",
}
_ALWAYS = {
    "stacks": "only addresses and small numbers stay",
    "registers": "only addresses, small numbers and the place stay",
    "kernel-identity": "stays",
    "numbers": "stays",
    "addresses": "stays",
}
_REMOVED = "is zero"


@dataclass(frozen=True, slots=True)
class KindOfData:
    """A kind of data in a core image."""

    kind: str
    meaning: str
    areas: Sequence[str]
    """The areas that have it; none if it is in the notes of the file."""
    policy: str = ""
    """What the policy did with it, if it is one that comes with kmemdump."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a core image holds, in words."""

    redacted: str
    """Names of the policies by which data was removed; empty if none was."""
    kinds: Sequence[KindOfData]

    def to_json(self) -> dict[str, Any]:
        """Return the fields, for :func:`json.dumps`."""
        return asdict(self)


def contents_of(target: Target) -> Contents:
    """
    Return which kinds of data a core image holds, by what its areas read.

    :raises UnsupportedError: If it is no core image of ours: it may hold anything.
    """
    core = core_of(target)
    manifest = core.manifest if core else None
    if core is None or manifest is None:
        raise UnsupportedError(
            f"{target.name}: is no core image of kmemdump, so it may hold any memory"
        )
    names = [area.name for area in manifest.areas]
    # What firmware saved has no list of areas.
    names = names or [area.name for area in AREAS if area.default]
    last = manifest.redacted.split(", ")[-1]
    policy = load_policy(last) if last in POLICIES else None
    areas = dict(kinds_of_areas(names))
    if target.registers():
        areas.setdefault("registers", [])
    if manifest.vm or manifest.cause:
        areas.setdefault("vm-names", [])
    found = []
    for kind, meaning in KINDS.items():
        if kind not in areas:
            continue
        done = ""
        if policy is not None:
            action = policy.kinds.get(kind)
            done = _WORDS[action] if action else _ALWAYS.get(kind, _REMOVED)
        found.append(KindOfData(kind, meaning, areas[kind], done))
    return Contents(manifest.redacted, found)
