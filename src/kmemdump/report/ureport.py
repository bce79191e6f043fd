# SPDX-License-Identifier: GPL-2.0-or-later
"""
A report as ABRT's uReport of version 2, of the kind ``kerneloops``.

For FAF and other servers that take them. The fields are those that satyr reads
(lib/report.c, lib/koops_stacktrace.c and lib/koops_frame.c of github.com/abrt/satyr).
What is not known is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from kmemdump.kernel.printk import format_record
from kmemdump.report.fault import lines_of_failure
from kmemdump.report.records import Findings
from kmemdump.version import VERSION

__all__ = ["to_ureport"]

_TAINTS = {
    "P": "module_proprietary",
    "F": "forced_module",
    "S": "smp_unsafe",
    "R": "forced_removal",
    "M": "mce",
    "B": "page_release",
    "U": "userspace",
    "D": "died_recently",
    "A": "acpi_overridden",
    "W": "warning",
    "C": "staging_driver",
    "I": "firmware_workaround",
    "O": "module_out_of_tree",
    "E": "unsigned_module",
    "L": "soft_lockup",
    "K": "live_patched",
}
"""satyr's names of taints."""
_SYSTEMS = (
    (re.compile(r"\.fc(\d+)"), "fedora"),
    (re.compile(r"\.el(\d+)"), "rhel"),
    (re.compile(r"\+deb(\d+)"), "debian"),
    (re.compile(r"Debian"), "debian"),
    (re.compile(r"Ubuntu"), "ubuntu"),
)
"""What a kernel's release and version say of the distribution."""


def to_ureport(report: Findings) -> dict[str, Any]:
    """Return a report as a dictionary for :func:`json.dumps`."""
    kernel = report.kernel
    problem: dict[str, Any] = {
        "type": "kerneloops",
        "component": "kernel",
        # A kernel belongs to no user; servers want the field.
        "user": {"root": True, "local": True},
        "taint_flags": [
            _TAINTS[x.letter] for x in report.taints if x.letter in _TAINTS
        ],
        "modules": [module.name for module in report.modules],
        "raw_oops": "\n".join(
            format_record(record)
            for record in lines_of_failure(report.log, report.cause)
        ),
        "frames": list(_frames(report)),
    }
    if kernel.release:
        problem["version"] = kernel.release
    found: dict[str, Any] = {
        "ureport_version": 2,
        "reason": report.cause.title or report.cause.sentence,
        "reporter": {"name": "kmemdump", "version": VERSION},
        "os": _system(report),
        "problem": problem,
    }
    package = _package(report)
    if package is not None:
        found["packages"] = [package]
    return found


def _system(report: Findings) -> dict[str, Any]:
    text = f"{report.kernel.release or ''} {report.kernel.version or ''}"
    found: dict[str, Any] = {}
    for pattern, name in _SYSTEMS:
        if match := pattern.search(text):
            found["name"] = name
            if match.lastindex:
                found["version"] = match[1]
            break
    if report.kernel.machine:
        found["architecture"] = report.kernel.machine
    if report.time.uptime is not None:
        found["uptime"] = int(report.time.uptime)
    return found


def _package(report: Findings) -> dict[str, Any] | None:
    version, dash, release = (report.kernel.release or "").partition("-")
    if not dash or not report.kernel.machine:
        return None
    return {
        "name": "kernel",
        "epoch": 0,
        "version": version,
        "release": release.removesuffix(f".{report.kernel.machine}"),
        "architecture": report.kernel.machine,
        "package_role": "affected",
    }


def _frames(report: Findings) -> Iterator[dict[str, Any]]:
    """Yield the frames of the log; of a CPU's stack, if the log has none."""
    for entry in report.trace:
        yield _known(
            reliable=entry.reliable,
            function_name=entry.function,
            function_offset=entry.offset,
            function_length=entry.size,
            module_name=entry.module,
            special_stack=entry.stack.upper() if entry.stack else None,
        )
    if report.trace or not report.cpus or report.cpus[0].number != report.cause.cpu:
        return
    for frame in report.cpus[0].frames:
        special = frame.stack if frame.stack not in (None, "task") else None
        yield _known(
            address=frame.pc,
            reliable=True,
            function_name=frame.symbol,
            function_offset=frame.offset,
            module_name=frame.module,
            special_stack=special.upper() if special else None,
        )


def _known(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
