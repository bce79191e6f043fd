# SPDX-License-Identifier: GPL-2.0-or-later
"""
Callers that the kernel logged by the name of another function.

A call that never returns, as that of ``panic()``, may be the last instruction of a
function. Its return address is then the start of the next function. x86 looks up the
instruction before (``%pB`` of printk), but arm64 (6.12, 7.3) does not: it logs
``next+0x0/0x20``, which says nothing of the caller but where it ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from kmemdump.diagnosis.blame import is_next_function
from kmemdump.diagnosis.event_block import MAX_TEXT
from kmemdump.diagnosis.stack_lines import read_frame
from kmemdump.kernel.printk import LogRecord

__all__ = ["FunctionStart", "find_starts", "name_callers"]

_MAX_STARTS = 32
"""Most that are looked up, in all symbols of their modules."""
_START = re.compile(
    r"([^\s(<]{1,255})\+0x0/0x[0-9a-f]{1,8}(?: ?\[([\w-]+)[^\]]{0,64}\])?"
)

FunctionStart = tuple[str, str | None]
"""A function and its module, as logged."""


def find_starts(records: Sequence[LogRecord]) -> list[FunctionStart]:
    """Return the functions whose starts stand in a log as addresses of callers."""
    starts = {(match[1], match[2]): None for _, match in _starts(records)}
    return list(starts)[:_MAX_STARTS]


def name_callers(
    records: Sequence[LogRecord], callers: Mapping[FunctionStart, str]
) -> Sequence[LogRecord]:
    """
    Return a log that names the callers themselves.

    :param callers: Their places, as the kernel prints places, by what was logged.
    """
    if not callers:
        return records
    named = list(records)
    for i, match in _starts(records):
        caller = callers.get((match[1], match[2]))
        if caller is not None:
            text = records[i].text
            text = f"{text[: match.start()]}{caller}{text[match.end() :]}"
            named[i] = replace(records[i], text=text)
    return named


def _starts(records: Sequence[LogRecord]) -> Iterator[tuple[int, re.Match[str]]]:
    """Yield the indices of records that name a caller so, and where they do."""
    before = None
    for i, record in enumerate(records):
        text = record.text[:MAX_TEXT]
        line = read_frame(text)
        if line is not None and is_next_function(line, before):
            match = _START.search(text)
            if match is not None:
                yield i, match
        before = line
