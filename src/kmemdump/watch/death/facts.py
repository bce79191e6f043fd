# SPDX-License-Identifier: GPL-2.0-or-later
"""What tells a death from others, read out of the dead kernel before it is copied."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import chain

from kmemdump.arch.architecture import arch_from_info
from kmemdump.arch.pagetable import read_virtual
from kmemdump.diagnosis.callers import FunctionStart, find_starts, name_callers
from kmemdump.diagnosis.cause import find_cause
from kmemdump.diagnosis.death_kind import DeathKind
from kmemdump.diagnosis.end_patterns import find_emergency
from kmemdump.diagnosis.log_findings import find_last_oops, find_panic
from kmemdump.diagnosis.records import Cause
from kmemdump.diagnosis.signature import (
    SIGNATURE_VERSION,
    Signature,
    SignatureSource,
)
from kmemdump.kernel.attach import Kernel, attach
from kmemdump.kernel.code_before import find_code_before
from kmemdump.kernel.printk import LogRecord, read_log
from kmemdump.memory.reading import Budget
from kmemdump.report.observe import observe
from kmemdump.report.sections import Sections
from kmemdump.sealing import Seal
from kmemdump.text import printable
from kmemdump.watch.death.memory import left_of_kernel
from kmemdump.watch.end_causes import DumpCause
from kmemdump.watch.events import EventFields
from kmemdump.watch.vm_marks import VmMarks

__all__ = ["DeathFacts", "read_facts"]

_MAX_WORDS = 200
"""Maximum length of the kernel's log about its death, in characters."""
_RECORDS = 32
"""Records before a death whose times tell it from that of another boot."""
_ID_BYTES = 16
_BUDGET = Budget(seconds=5.0, patience=15.0)
"""For each thing that is looked for, while the VM stands still."""
_SEEN_ONCE = (DeathKind.QEMU_ENDED, DeathKind.VANISHED, DeathKind.REQUESTED)
"""Of these nothing is left at which one could look twice."""


@dataclass(frozen=True, slots=True)
class DeathFacts:
    """What is known of a death before a core image is written of it."""

    id: str
    """
    The same for two looks at one dead kernel, different for two deaths; empty if there
    is nothing to tell it by.
    """
    signature: str
    """The same for two deaths of one cause."""
    words: str = ""
    """What the kernel logged about its death; empty if it logged nothing."""
    source: SignatureSource = SignatureSource.WORDS
    """What the signature was made from."""

    @property
    def signature_fields(self) -> EventFields:
        """The signature, as the fields of an event have it; none if it is not shown."""
        if not self.signature:
            return {}
        return EventFields(
            signature=self.signature,
            signature_version=SIGNATURE_VERSION,
            signature_source=self.source.value,
        )

    def shown(self, seal: Seal | None) -> DeathFacts:
        """Return what may be said of it where everybody can read it."""
        if seal is None or seal.show_cause:
            return self
        return DeathFacts(self.id, "")


def read_facts(marks: VmMarks, cause: DumpCause) -> DeathFacts:
    """Read what tells a death from others; never raises."""
    records = _read_records(marks)
    logged = _find_logged(cause.kind, _with_callers(marks, records))
    words = "" if logged is None else printable(logged.sentence.rstrip("."))
    id = ""
    if cause.kind not in _SEEN_ONCE and records:
        if cause.kind is DeathKind.HANG:
            evidence = _standing_counters(marks, cause) or _times(records)
        else:
            evidence = _times(records, logged)
        id = _digest(marks, cause.kind, evidence)
    signature = None if logged is None else logged.signature
    if signature is None:
        signature = _find_signature(marks, cause)
    if signature is None:
        signature = Signature.of_words(cause.kind, words or cause.cause)
    return DeathFacts(
        id,
        signature.text,
        words if len(words) <= _MAX_WORDS else f"{words[:_MAX_WORDS]}…",
        signature.source,
    )


def _read_records(marks: VmMarks) -> Sequence[LogRecord]:
    state = marks.read_kernel()
    if state is None or not state.same:
        return ()  # What is in memory is not this kernel's.
    info, memory = marks.info, marks.target.memory
    try:
        table = arch_from_info(info).page_table(info)
        # Not by way of drgn, whose program has what it read when the kernel lived.
        read = partial(read_virtual, table, memory.read)
        return read_log(read, info).records
    except Exception:  # It may be damaged in any way.
        return ()


@contextmanager
def _dead_kernel(marks: VmMarks) -> Iterator[Kernel]:
    """Attach to what is left of a kernel; raises whatever its memory may cause."""
    with left_of_kernel(marks) as dead:
        vmlinux = None
        if marks.capture.kernel.own_debug_info.found is None:
            vmlinux = marks.selection.vmlinux
        known = marks.capture.kernel
        yield attach(dead, vmlinux=vmlinux, known=known, marking=False)


def _with_callers(marks: VmMarks, records: Sequence[LogRecord]) -> Sequence[LogRecord]:
    """Return a log that names callers as the report of the core image does."""
    starts = find_starts(records)
    if not starts:
        return records
    callers: dict[FunctionStart, str] = {}
    try:
        with _dead_kernel(marks) as kernel:
            find = Sections(kernel.recorder, _BUDGET).find
            callers = find(
                "callers", lambda: find_code_before(kernel.prog, starts), callers
            )
    except Exception:  # A dead kernel's memory may break drgn in any way.
        return records
    return name_callers(records, callers)


def _find_signature(marks: VmMarks, cause: DumpCause) -> Signature | None:
    """
    Return the signature that the report of the core image will have.

    A kernel that hangs, or that was reset, logs nothing. Its stacks tell one such bug
    from another one, and so how many core images there are of each.
    """
    try:
        with _dead_kernel(marks) as kernel:
            sections = Sections(kernel.recorder, _BUDGET)
            observed = observe(kernel, sections, captured=datetime.now(UTC))
        seen = replace(observed.seen, capture_reason=cause.text, death=cause.kind)
        found = find_cause(seen)
    except Exception:  # A dead kernel's memory may break drgn in any way.
        return None
    return found.signature if found.fatal else None


def _find_logged(kind: DeathKind, records: Sequence[LogRecord]) -> Cause | None:
    """Find what the kernel logged about its death, and not about an earlier oops."""
    try:
        if kind is DeathKind.OOPS:
            return find_last_oops(records)
        cause = None if kind is DeathKind.HANG else find_panic(records)
        if cause is None and kind is DeathKind.PANIC:
            return find_last_oops(records)
        return cause or find_emergency(records)
    except Exception:  # The same.
        return None


def _times(records: Sequence[LogRecord], logged: Cause | None = None) -> Iterator[int]:
    """
    Yield numbers and times of the last records up to the first about the death.

    Two boots may reach the same record, but not each of them in the same nanosecond.
    """
    about = [item.sequence for item in logged.log] if logged else []
    before = [item for item in records if not about or item.sequence <= min(about)]
    numbers = ((item.sequence, item.nanoseconds or 0) for item in before[-_RECORDS:])
    return chain.from_iterable(numbers)


def _standing_counters(marks: VmMarks, cause: DumpCause) -> list[bytes]:
    """Return the counters of the CPUs that hang, which stand still as long as that."""
    try:
        cpus = marks.progress.cpus(marks.target.memory)
    except Exception:  # The same.
        return []
    return [
        item.counters
        for number, item in sorted(cpus.items())
        if item.counters is not None and (not cause.cpus or number in cause.cpus)
    ]


def _digest(
    marks: VmMarks, kind: DeathKind, evidence: Iterator[int] | list[bytes]
) -> str:
    digest = hashlib.sha256()
    # A panic may be followed by a reset, of which another watcher then hears first.
    group = kind if kind in (DeathKind.OOPS, DeathKind.HANG) else "end"
    info = marks.info
    offset = info.values.get("KERNELOFFSET")
    for part in (group, info.osrelease, info.build_id, offset, *evidence):
        digest.update(repr(part).encode() + b"\n")
    return digest.digest()[:_ID_BYTES].hex()
