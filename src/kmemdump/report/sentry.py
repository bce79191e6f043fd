# SPDX-License-Identifier: GPL-2.0-or-later
"""
A report as an event of Sentry: https://develop.sentry.dev/sdk/data-model/event-payloads/.

The signature is the event's fingerprint, so that Sentry groups deaths as kmemdump does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from kmemdump.report.records import Findings
from kmemdump.report.schema import to_json
from kmemdump.version import VERSION

__all__ = ["to_sentry"]

_MAX_BREADCRUMBS = 100
"""Sentry keeps no more."""
_LEVELS = ("fatal", "fatal", "fatal", "error", "warning", "info", "info", "debug")
"""Sentry's names of the kernel's levels."""


def to_sentry(report: Findings) -> dict[str, Any]:
    """Return a report as a dictionary for :func:`json.dumps`."""
    cause, kernel = report.cause, report.kernel
    kind = str(cause.event or cause.kind)
    event: dict[str, Any] = {
        # The same for the same report, so that sending it twice makes one event.
        "event_id": _identity(report),
        "platform": "native",
        "level": "fatal" if cause.fatal else "error",
        "logger": "kernel",
        "sdk": {"name": "kmemdump", "version": VERSION},
        "exception": {
            "values": [
                {
                    "type": kind,
                    "value": cause.sentence,
                    "mechanism": {"type": "kernel", "handled": not cause.fatal},
                    "stacktrace": {"frames": [*_frames(report)][::-1]},
                }
            ]
        },
        "tags": {"kind": kind},
        "contexts": {"os": {"type": "os", "name": "Linux"}},
    }
    when = report.time.date or report.time.captured
    if when is not None:
        event["timestamp"] = when.isoformat()
    if kernel.release:
        event["release"] = f"linux@{kernel.release}"
        event["contexts"]["os"]["kernel_version"] = kernel.release
    if kernel.hostname:
        event["server_name"] = kernel.hostname
    device = {}
    if report.hardware is not None:
        device["model"] = report.hardware.name
    if kernel.machine:
        device["arch"] = kernel.machine
    if device:
        event["contexts"]["device"] = {"type": "device", **device}
    if cause.signature is not None:
        event["fingerprint"] = [cause.signature.text, str(cause.signature.version)]
        event["tags"]["signature"] = cause.signature.text
    if cause.function:
        event["culprit"] = cause.function
        event["transaction"] = cause.function
    event["breadcrumbs"] = {"values": list(_breadcrumbs(report))}
    return event


def _identity(report: Findings) -> str:
    text = json.dumps(to_json(report), sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:32]


def _frames(report: Findings) -> Iterator[dict[str, Any]]:
    """Yield frames, the innermost first; Sentry wants them last."""
    at_fault = report.cpus and report.cpus[0].number == report.cause.cpu
    if at_fault and report.cpus[0].frames:
        for frame in report.cpus[0].frames:
            yield _frame(frame.symbol, frame.module, frame.source, frame.pc)
        return
    for entry in report.trace:
        if entry.reliable:
            yield _frame(entry.function, entry.module, entry.source, None)


def _frame(
    function: str | None, module: str | None, source: str | None, pc: int | None
) -> dict[str, Any]:
    found: dict[str, Any] = {"package": module or "vmlinux", "in_app": True}
    if function:
        found["function"] = function
    if pc is not None:
        found["instruction_addr"] = f"{pc:#x}"
    if source:
        file, _, line = source.partition(" ")[0].rpartition(":")
        found["filename"] = file
        if line.isdigit():
            found["lineno"] = int(line)
    return found


def _breadcrumbs(report: Findings) -> Iterator[dict[str, Any]]:
    for record in report.log[-_MAX_BREADCRUMBS:]:
        item: dict[str, Any] = {
            "category": "kernel" if record.facility == 0 else "program",
            "message": record.text,
        }
        if record.level is not None:
            item["level"] = _LEVELS[record.level]
        if record.nanoseconds is not None:
            item["data"] = {"seconds_since_boot": record.nanoseconds / 1e9}
        yield item
