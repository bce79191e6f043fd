# SPDX-License-Identifier: GPL-2.0-or-later
"""The costly step: what one source says, as a row and as a page."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from kmemdump.catalogue.content import Content
from kmemdump.catalogue.problem import Examined, cleaned, problem_row
from kmemdump.catalogue.row import Row
from kmemdump.catalogue.sources import Source
from kmemdump.core import Core, open_core
from kmemdump.coreimage import Manifest
from kmemdump.diagnosis.log_cause import diagnose_log
from kmemdump.diagnosis.log_line import lines_of
from kmemdump.diagnosis.records import Cause, CauseKind, Frame
from kmemdump.diagnosis.signature import SIGNATURE_VERSION, make_signature
from kmemdump.errors import KmemdumpError
from kmemdump.logs.read import open_log
from kmemdump.report import Report, gather_from_log

__all__ = ["examine"]

_FIRST = datetime(2005, 4, 16, tzinfo=UTC)
"""Before it, a machine's clock was not set: git knows no older kernel."""
_AHEAD = timedelta(days=1)
"""A clock that is further ahead is wrong."""
_MAX_FRAMES = 16


def examine(source: Source, host: str, content: Content) -> Examined:
    """
    Return what a source says; that it is damaged is a row, too.

    :param host: Name of the machine that adds it.
    """
    try:
        log = open_log(content.path)
        if log is not None:
            report, manifest, form = gather_from_log(log), None, "log"
        else:
            with open_core(content.path) as core:
                report, manifest = core.report(), _manifest(core)
            form = "core image" if manifest else "dump"
        # A copy of a remote source has another name.
        report = replace(report, source=source.name)
        row = _row(source, host, content, report, manifest, form)
        return row, report.to_html().encode()
    except KmemdumpError as error:
        return problem_row(source, host, str(error), content), None
    except Exception as error:  # A dead kernel's memory may break drgn in any way.
        problem = f"a bug of kmemdump: {type(error).__name__}: {error}"
        return problem_row(source, host, problem, content), None


def _row(
    source: Source,
    host: str,
    content: Content,
    report: Report,
    manifest: Manifest | None,
    form: str,
) -> Row:
    cause = report.cause
    added = datetime.now(UTC)
    missing = "; ".join(f"{loss.what}: {loss.why}" for loss in report.missing)
    return cleaned(
        Row(
            content=content.hash,
            source=source.name,
            added=added,
            added_by=host,
            form=form,
            size=content.size,
            modified=source.modified,
            died=_death_time(report, manifest, added),
            kind=cause.kind.value,
            sentence=cause.sentence,
            **_blamed(report),
            release=report.kernel.release or None,
            build_id=report.kernel.build_id,
            architecture=report.kernel.machine,
            machine=(manifest.vm if manifest else "") or report.kernel.hostname,
            hardware=report.hardware.name if report.hardware else None,
            death_id=(manifest.death_id if manifest else "") or None,
            complete=not report.missing,
            problem=missing or None,
        )
    )


def _manifest(core: Core) -> Manifest | None:
    try:
        return core.manifest
    except KmemdumpError:
        return None  # The report says so.


def _blamed(report: Report) -> dict[str, Any]:
    """Return what makes deaths a group; nothing if there was no death."""
    cause = report.cause
    if cause.kind is CauseKind.ALIVE or (
        cause.kind is CauseKind.UNKNOWN and not cause.log and not cause.evidence
    ):
        return {}
    said = diagnose_log(list(lines_of(report.log)))
    if said is not None and said.function is not None:
        signature = said.signature
        return {
            "signature": signature.text,
            "signature_version": signature.version,
            "signature_origin": signature.source.value,
            "function": said.function,
            "module": said.module,
            "frames": said.frames[:_MAX_FRAMES] or None,
        }
    frames = _frames(report, cause)
    first = frames[0] if frames else None
    names = [frame.symbol for frame in frames if frame.symbol]
    return {
        "signature": make_signature(cause.kind, cause.sentence),
        "signature_version": SIGNATURE_VERSION,
        "signature_origin": "stacks" if first else "log",
        "function": first.symbol if first else None,
        "module": first.module if first else None,
        "frames": tuple(names[:_MAX_FRAMES]) or None,
    }


def _frames(report: Report, cause: Cause) -> tuple[Frame, ...]:
    for cpu in report.cpus:
        if cpu.number == cause.cpu and cause.frame is not None:
            return cpu.frames[cause.frame :]
    return ()


def _death_time(
    report: Report, manifest: Manifest | None, added: datetime
) -> datetime | None:
    watched = manifest is not None and bool(manifest.vm) and not manifest.by_firmware
    # Whoever watched the kernel has a clock that still ran.
    times = [report.time.captured] if watched else []
    times += [report.time.date]
    return next((it for it in times if it and _FIRST <= it <= added + _AHEAD), None)
