# SPDX-License-Identifier: GPL-2.0-or-later
"""
A report as text to paste into a mail to the kernel's mailing lists.

The trace is as scripts/decode_stacktrace.sh of the kernel makes it: file and line, if
they are known, in place of offsets. Other lines stay as logged, so that whoever has the
vmlinux can pass them through that script.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kmemdump.kernel.printk import format_record
from kmemdump.report.fault import lines_of_failure
from kmemdump.report.records import Findings
from kmemdump.text import printable

__all__ = ["to_mail"]

_PLACE = re.compile(r"([\w.$]+)\+0x([0-9a-f]+)/0x[0-9a-f]+")
_MAX_FRAMES = 40


def to_mail(report: Findings) -> str:
    """Return what a maintainer needs: a summary, the machine, the lines of the log."""
    return "\n".join(printable(line) for line in _lines(report)) + "\n"


def _lines(report: Findings) -> Iterator[str]:
    yield report.cause.sentence
    yield ""
    kernel = report.kernel
    words = [kernel.release, kernel.version, kernel.machine]
    if any(words):
        yield f"Kernel: {' '.join(word for word in words if word)}"
    if report.hardware is not None:
        bios = f", BIOS {report.hardware.bios}" if report.hardware.bios else ""
        yield f"Hardware: {report.hardware.name}{bios}"
    if report.taints:
        reasons = ", ".join(f"{item.letter} ({item.words})" for item in report.taints)
        yield f"Tainted: {reasons}"
    failure = lines_of_failure(report.log, report.cause)
    if failure:
        yield ""
        sources = _sources(report)
        for record in failure:
            for line in format_record(record).split("\n"):
                yield _PLACE.sub(lambda match: _decode(match, sources), line)
    elif report.cpus and report.cpus[0].number == report.cause.cpu:
        yield ""
        yield f"CPU {report.cause.cpu}:"
        for frame in report.cpus[0].frames[:_MAX_FRAMES]:
            yield f" {frame.place}{f' ({frame.source})' if frame.source else ''}"


def _sources(report: Findings) -> dict[tuple[str, int], str]:
    """Return the source of each place on a stack, by function and offset."""
    stacks = [cpu.frames for cpu in report.cpus]
    stacks += [blocked.frames for blocked in report.blocked]
    found = {
        (frame.symbol, frame.offset): frame.source
        for frames in stacks
        for frame in frames
        if frame.symbol and frame.offset is not None and frame.source
    }
    logged = {
        (entry.function, entry.offset): entry.source
        for entry in report.trace
        if entry.offset is not None and entry.source
    }
    return logged | found


def _decode(match: re.Match[str], sources: dict[tuple[str, int], str]) -> str:
    source = sources.get((match[1], int(match[2], 16)))
    return f"{match[1]} ({source})" if source else match[0]
