# SPDX-License-Identifier: GPL-2.0-or-later
"""Patterns in the kernel log of oopses, and of warnings that are not fatal."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kmemdump.diagnosis.log_block import END_TRACE, kernel_records, read_block
from kmemdump.diagnosis.records import Cause, CauseKind
from kmemdump.kernel.printk import LogRecord

__all__ = ["because", "find_oops", "find_warnings"]

_OVERFLOW = "The kernel's stack overflowed"
_OOPSES: tuple[tuple[re.Pattern[str], CauseKind, str], ...] = tuple(
    (re.compile(pattern), kind, words)
    for pattern, kind, words in (
        (
            r"BUG: kernel NULL pointer dereference|"
            r"Unable to handle kernel NULL pointer dereference",
            CauseKind.NULL,
            "The kernel dereferenced a NULL pointer",
        ),
        (
            r"BUG: unable to handle (page fault|kernel paging request)|"
            r"Unable to handle kernel (paging request|access)",
            CauseKind.OOPS,
            "The kernel used a bad pointer",
        ),
        (r"kernel BUG at (\S+)!", CauseKind.OOPS, "The kernel gave up at a BUG()"),
        (
            # Newer kernels say "Oops: " before it, as before those below.
            r"(?:Oops: )?general protection fault",
            CauseKind.OOPS,
            "The kernel used an address that cannot exist",
        ),
        (r"(?:Oops: )?divide error:", CauseKind.OOPS, "The kernel divided by zero"),
        (
            r"BUG: \S+ stack guard page was hit|traps: PANIC: double fault|"
            r"Insufficient stack space to handle exception|kernel stack overflow",
            CauseKind.OOPS,
            _OVERFLOW,
        ),
        (
            r"Oops(?::| -) |Internal error: |(invalid opcode|stack segment): ",
            CauseKind.OOPS,
            "The kernel hit an exception that it cannot handle",
        ),
    )
)
_MAX_WARNINGS = 5
_WARNINGS = re.compile(
    r"watchdog: BUG: soft lockup - |BUG: soft lockup - |[Hh]ard LOCKUP|"
    r"rcu: INFO: .* (self-)?detected stall|INFO: task .* blocked for more than|"
    r"BUG: workqueue lockup|WARNING: .*(CPU|PID): "
)


def find_warnings(records: Sequence[LogRecord]) -> tuple[LogRecord, ...]:
    """Find the last few lockups, stalls and other warnings that the kernel survived."""
    own = kernel_records(records)
    found = [record for record in own if _WARNINGS.search(record.text)]
    return tuple(found[-_MAX_WARNINGS:])


def find_oops(
    records: Sequence[LogRecord], *, panic: str | None = None
) -> Cause | None:
    """
    Find the last oops.

    :param panic: The kernel's message, if it panicked because of this oops.
    """
    own = kernel_records(records)
    ends = [-1] + [i for i, r in enumerate(own) if r.text.startswith(END_TRACE)]
    # Several lines of an oops look like its start; the first of the last oops counts.
    last = ends[-1]
    if len(ends) > 1 and not any(_oops(record) for record in own[last + 1 :]):
        last = ends[-2]
    for i in range(last + 1, len(own)):
        found = _oops(own[i])
        if found is not None:
            break
    else:
        return None
    kind, words = found
    block = read_block(own, i)
    end = _end(panic, overflow=words == _OVERFLOW)
    sentence = f"{words}{block.in_function}{block.access}{block.in_task}. {end}"
    lines = {r.sequence: r for r in (own[i], *block.key_records())}
    if kind is not CauseKind.NULL or "Oops" not in own[i].text:
        starts = ("Oops: ", "Internal error: Oops")
        oops = next((r for r in block.records if r.text.startswith(starts)), own[i])
        lines[oops.sequence] = oops
    log = tuple(lines[sequence] for sequence in sorted(lines))
    return Cause(kind, sentence, log, cpu=block.cpu, fatal=panic is not None)


def _end(panic: str | None, *, overflow: bool) -> str:
    """
    Say what followed an oops; see die() and oops_end() in the kernel's arch/.

    :param overflow: Whether a stack overflowed, so that it is told on another one: the
        kernel takes that for an interrupt's.
    """
    if panic is None:
        return "The task was killed, and the kernel went on."
    if overflow and "in interrupt" in panic:
        return "That is always fatal."
    if "in interrupt" in panic:
        return "It was in an interrupt, where that is always fatal."
    return because("panic_on_oops is set (oops=panic)")


def _oops(record: LogRecord) -> tuple[CauseKind, str] | None:
    matches = ((kind, words) for it, kind, words in _OOPSES if it.match(record.text))
    return next(matches, None)


def because(setting: str) -> str:
    """Return a sentence that names the setting by which the kernel panicked."""
    return f"The kernel panicked because {setting}."
