# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel log of a core image says, as causes of death."""

from __future__ import annotations

from collections.abc import Sequence

from kmemdump.diagnosis.event_grammar import find_event
from kmemdump.diagnosis.event_kind import EventKind
from kmemdump.diagnosis.event_pattern import Weight
from kmemdump.diagnosis.log_block import END_TRACE, kernel_records
from kmemdump.diagnosis.log_cause import explain
from kmemdump.diagnosis.log_events import Root, find_root
from kmemdump.diagnosis.log_line import lines_of
from kmemdump.diagnosis.records import Cause, CauseKind
from kmemdump.kernel.printk import LogRecord

__all__ = ["find_last_oops", "find_oops", "find_panic", "find_warning", "find_warnings"]

_MAX_WARNINGS = 5
_KINDS = {EventKind.NULL: CauseKind.NULL, EventKind.NMI: CauseKind.NMI}
_STUCK = (
    *(EventKind.SOFT_LOCKUP, EventKind.HARD_LOCKUP, EventKind.HUNG_TASK),
    *(EventKind.RCU_STALL, EventKind.WORKQUEUE_LOCKUP),
)
_WARNS = (Weight.SPLAT, Weight.STALL, Weight.CORRUPTION)


def find_panic(records: Sequence[LogRecord]) -> Cause | None:
    """Find the panic that ended the kernel, and what it panicked for."""
    root = find_root(list(lines_of(records)))
    return None if root is None or root.panic is None else _cause(root, records)


def find_oops(records: Sequence[LogRecord], *, fatal: bool = False) -> Cause | None:
    """
    Find the first oops: later ones often come of it.

    :param fatal: Whether the kernel is known to have ended after the last record.
    """
    root = find_root(list(lines_of(records)), ended=fatal)
    return (
        None
        if root is None or root.weight is not Weight.OOPS
        else _cause(root, records)
    )


def find_warning(records: Sequence[LogRecord]) -> Cause | None:
    """Find the first event that the kernel survived."""
    root = find_root(list(lines_of(records)))
    return None if root is None or root.panic is not None else _cause(root, records)


def find_last_oops(records: Sequence[LogRecord]) -> Cause | None:
    """Find the last oops, which is what who watches a kernel hears of."""
    own = kernel_records(records)
    ends = [-1] + [i for i, r in enumerate(own) if r.text.startswith(END_TRACE)]
    # Several lines of an oops look like its start; the first of the last oops counts.
    last = ends[-1]
    if len(ends) > 1 and not any(_is_oops(record) for record in own[last + 1 :]):
        last = ends[-2]
    return find_oops(own[last + 1 :])


def find_warnings(records: Sequence[LogRecord]) -> tuple[LogRecord, ...]:
    """Find the last few lockups, stalls and other warnings that the kernel survived."""
    found = []
    for record in reversed(kernel_records(records)):
        event = find_event(record.text)
        if event is not None and event[0].weight in _WARNS:
            found.append(record)
            if len(found) == _MAX_WARNINGS:
                break
    return tuple(found[::-1])


def _is_oops(record: LogRecord) -> bool:
    event = find_event(record.text)
    return event is not None and event[0].weight is Weight.OOPS


def _cause(root: Root, records: Sequence[LogRecord]) -> Cause:
    told = explain(root)
    numbers = {line.number for line in told.evidence}
    kind = _KINDS.get(root.kind)
    if kind is None and root.kind in _STUCK:
        kind = CauseKind.HANG
    if kind is None:
        kind = CauseKind.WARNING if root.panic is None else CauseKind.PANIC
        if root.weight is Weight.OOPS:
            kind = CauseKind.OOPS
    return Cause(
        kind,
        told.sentence,
        tuple(record for record in records if record.sequence in numbers),
        cpu=told.cpu,
        fatal=told.fatal,
        event=told.kind,
        function=told.function,
        module=told.module,
        functions=told.frames or None,
        title=told.title,
        signature=told.signature,
    )
