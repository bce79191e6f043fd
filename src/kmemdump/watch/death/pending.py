# SPDX-License-Identifier: GPL-2.0-or-later
"""
A death for which a watch has paused the VM, for the next one if that watch ends.

The memory of a dead kernel can crash the process that reads it, and not every death
can be seen again: a CPU that hung stands still like all others, and a reset leaves
nothing.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields

from kmemdump.diagnosis.death_kind import DeathKind
from kmemdump.watch.end_causes import DumpCause, VmAfterDeath
from kmemdump.watch.vm_marks import VmMarks

__all__ = ["Pending"]


@dataclass(frozen=True, slots=True)
class Pending:
    """A death, as a file can hold it."""

    life: str
    """Of the VM."""
    boot: str
    """Of the kernel."""
    kind: str
    cause: str
    vm: str
    """What the VM does by itself, by the name of a :class:`VmAfterDeath`."""

    @classmethod
    def of(cls, life: str, marks: VmMarks, cause: DumpCause) -> Pending:
        """Return what is to be noted of a death."""
        return cls(life, _boot(marks), cause.kind.value, cause.cause, cause.vm.name)

    @classmethod
    def read(cls, value: object) -> Pending | None:
        """Return what a file has; None if it has none."""
        found = value if isinstance(value, Mapping) else {}
        values = [found.get(item.name) for item in fields(cls)]
        texts = [item for item in values if isinstance(item, str)]
        if len(texts) < len(values) or not all(item.isprintable() for item in texts):
            return None
        return cls(*texts)

    def is_of(self, marks: VmMarks) -> bool:
        """Return whether it is of a kernel."""
        return self.boot == _boot(marks)

    def to_cause(self) -> DumpCause | None:
        """Return the death as if it were now; None if it makes no sense."""
        try:
            kind, vm = DeathKind(self.kind), VmAfterDeath[self.vm]
        except (ValueError, KeyError):
            return None
        return DumpCause(kind, self.cause, time.monotonic(), vm)


def _boot(marks: VmMarks) -> str:
    return hashlib.sha256(repr(marks.boot).encode()).hexdigest()
