# SPDX-License-Identifier: GPL-2.0-or-later
"""The cause of death that a kernel log alone names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kmemdump.diagnosis.event_kind import EventKind
from kmemdump.diagnosis.event_place import EventPlace, find_place
from kmemdump.diagnosis.event_words import describe
from kmemdump.diagnosis.hardware_words import describe_nmi
from kmemdump.diagnosis.log_events import Root, find_root
from kmemdump.diagnosis.log_line import LogLine
from kmemdump.diagnosis.signature import Signature

__all__ = ["LogCause", "diagnose_log", "explain"]

_TOLD_APART = (
    *(EventKind.PANIC, EventKind.OOPS, EventKind.FILE_SYSTEM, EventKind.MEMORY_ERROR),
    *(EventKind.WATCHDOG, EventKind.PCIE_ERROR, EventKind.ENCLAVE),
    *(EventKind.HYPERVISOR, EventKind.INIT_DEATH, EventKind.NO_ROOT),
)
"""Kinds of panics that have many reasons, which their message names."""


@dataclass(frozen=True, slots=True)
class LogCause:
    """What went wrong first, according to a kernel log."""

    kind: EventKind
    sentence: str
    """For readers who do not know the kernel."""
    title: str
    """Short, in the form in which syzkaller and mailing lists name bugs."""
    signature: Signature
    function: str | None = None
    """The function to look at first, without offset or the compiler's suffixes."""
    module: str | None = None
    """The module of that function; ``None`` if it is built in, or not known."""
    frames: tuple[str, ...] = ()
    """Functions on the stack that matter, innermost first, named as *function*."""
    evidence: tuple[LogLine, ...] = ()
    """The lines that say so."""
    cpu: int | None = None
    task: str | None = None
    """Name of the task that ran."""
    pid: int | None = None
    fatal: bool = False
    """Whether the log shows that the kernel ended of it."""


def diagnose_log(lines: Sequence[LogLine]) -> LogCause | None:
    """
    Return what went wrong first; ``None`` if the log shows nothing wrong.

    :param lines: In the order in which they were logged. May be cut, and may hold lines
        of several CPUs at once.
    """
    root = find_root(lines)
    return None if root is None else explain(root)


def _message(root: Root) -> str:
    """Return what tells events without a place apart: what panic() said, or a file."""
    if root.panic is not None and root.line is root.panic.line:
        return root.panic.message if root.kind in _TOLD_APART else ""
    file = root.match.groupdict().get("file") or ""
    return file.partition(":")[0]


def _signature(root: Root, place: EventPlace) -> Signature:
    if root.kind is EventKind.NMI:
        # It hits whatever runs at that moment.
        return Signature.of_log(root.kind, None, describe_nmi(root)[0])
    return Signature.of_log(root.kind, place.function, _message(root))


def explain(root: Root) -> LogCause:
    """Return what is to be said of an event."""
    place = find_place(root)
    told = describe(root, place)
    return LogCause(
        root.kind,
        told.sentence,
        told.title,
        _signature(root, place),
        place.function,
        place.module,
        place.frames,
        told.evidence,
        told.cpu,
        told.task,
        told.pid,
        root.panic is not None or root.ended,
    )
