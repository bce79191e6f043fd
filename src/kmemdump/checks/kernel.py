# SPDX-License-Identifier: GPL-2.0-or-later
"""Check what is known of a kernel, and which questions its core image answers."""

from __future__ import annotations

from collections.abc import Iterator

from kmemdump.checks.point import Point, missing, ok, warning
from kmemdump.kernel.attach import Kernel
from kmemdump.kernel.program import NAME
from kmemdump.marking.capture import Capture
from kmemdump.report.inspect import Inspection
from kmemdump.text import printable

__all__ = ["check_image", "check_kernel", "check_questions"]

_MOST = 5
"""Maximum of questions to name."""

_Asked = dict[tuple[str, str], str]
"""Area and question, to why there is no answer; empty if there is one."""


def check_kernel(capture: Capture) -> Iterator[Point]:
    """Check how a kernel was found, and where its symbols and types come from."""
    kernel = capture.kernel
    info = kernel.vmcoreinfo
    where = info.source.removeprefix(str(kernel.prog.config[NAME])).lstrip(":, ")
    yield ok("kernel", f"{info.osrelease}, found by {where or info.source}")
    yield _check_symbols(capture, kernel)


def _check_symbols(capture: Capture, kernel: Kernel) -> Point:
    name = "symbols"
    if capture.found_vmlinux is not None:
        return ok(name, f"of {capture.found_vmlinux}: the kernel's own are incomplete")
    if kernel.has_vmlinux:
        return ok(name, "of the vmlinux that is given")
    advice = (
        f"put the vmlinux of {kernel.vmcoreinfo.osrelease} where its distribution "
        "does, or give --vmlinux FILE"
    )
    if kernel.problem is not None:
        return missing(name, _line(kernel.problem), advice)
    if kernel.lacks:
        return warning(name, f"the kernel's own, but {_line(kernel.lacks)}", advice)
    return ok(name, "the kernel's own: kallsyms and BTF")


def check_questions(
    capture: Capture, inspection: Inspection | None, *, with_registers: bool = True
) -> Point:
    """
    Check which questions a death now would leave without an answer.

    :param inspection: Of the core image that was rehearsed.
    :param with_registers: Whether registers are expected now. If not, questions that
        lack only registers count as answered: firmware saves them at the death.
    """
    asked: _Asked = {}
    for area in capture.marking.areas:
        for item in area.questions:
            lacks = with_registers or not item.without_registers
            asked[area.name, item.text] = (item.reason or "") if lacks else ""
    return _judge(asked, inspection)


def check_image(inspection: Inspection) -> Point:
    """Check which questions a core image that another process wrote does not answer."""
    asked: _Asked = {}
    for area in inspection.areas:
        for item in area.questions:
            asked[area.name, item.text] = "" if item.complete else item.reason
    return _judge(asked, inspection)


def _judge(asked: _Asked, inspection: Inspection | None) -> Point:
    for tried in inspection.tried if inspection is not None else ():
        asked.setdefault((tried.area, tried.question), "")
    for tried in inspection.broken if inspection is not None else ():
        asked[tried.area, tried.question] = tried.reason
    failed = [
        f"{question} (area {area}): {_line(reason)}"
        for (area, question), reason in asked.items()
        if reason
    ]
    if not failed:
        where = "" if inspection is None else " in the core image"
        return ok("questions", f"all {len(asked)} have an answer{where}")
    more = f"; and {len(failed) - _MOST} more" if len(failed) > _MOST else ""
    return missing(
        "questions",
        f"{len(failed)} of {len(asked)} would fail: {'; '.join(failed[:_MOST])}{more}",
        "leave areas out with --area -NAME, if their answers are not needed",
    )


def _line(text: str) -> str:
    return printable(" ".join(text.split()))
