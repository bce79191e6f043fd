# SPDX-License-Identifier: GPL-2.0-or-later
"""The costly step: what one source says, as a row and as a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from kmemdump.catalogue.content import Content
from kmemdump.catalogue.problem import Examined, cleaned, problem_row
from kmemdump.catalogue.row import Row
from kmemdump.catalogue.sources import Source
from kmemdump.core import Core
from kmemdump.coreimage import Manifest
from kmemdump.diagnosis.records import Cause, CauseKind
from kmemdump.errors import KmemdumpError
from kmemdump.formats.sealed import Sealed
from kmemdump.kernel.build_cache import BuildCache
from kmemdump.logs.read import open_log
from kmemdump.opening import open_target
from kmemdump.report import wording
from kmemdump.report.from_log import gather_from_log
from kmemdump.report.report import Report
from kmemdump.sealing import NoKeyError
from kmemdump.targets import Target

__all__ = ["examine"]

_FIRST = datetime(2005, 4, 16, tzinfo=UTC)
"""Before it, a machine's clock was not set: git knows no older kernel."""
_AHEAD = timedelta(days=1)
"""A clock that is further ahead is wrong."""


def examine(
    source: Source,
    host: str,
    content: Content,
    identity: Sequence[str] = (),
    builds: Callable[[Target], BuildCache | None] = lambda _: None,
) -> Examined:
    """
    Return what a source says; that it is damaged is a row, too.

    :param host: Name of the machine that adds it.
    :param identity: Files of private keys, if it is sealed.
    :param builds: Returns what keeps what core images of one kernel have in common.
    """
    try:
        log = open_log(content.path)
        if log is not None:
            report, manifest, form = gather_from_log(log), None, "log"
        else:
            with open_target(content.path, identity=identity) as target:
                core = Core(target, builds=builds(target))
                report, manifest = core.report(), _manifest(core)
            form = "core image" if manifest else "dump"
        # A copy of a remote source has another name.
        report = replace(report, source=source.name)
        row = _row(source, host, content, report, manifest, form)
        return row, report.to_html().encode()
    except NoKeyError as error:
        return _sealed_row(source, host, content, error.sealed), None
    except KmemdumpError as error:
        return problem_row(source, host, str(error), content), None
    except Exception as error:  # A dead kernel's memory may break drgn in any way.
        problem = f"a bug of kmemdump: {type(error).__name__}: {error}"
        return problem_row(source, host, problem, content), None


def _sealed_row(source: Source, host: str, content: Content, sealed: Sealed) -> Row:
    """Return what can be said without a key."""
    row = problem_row(source, host, "sealed: --identity FILE examines it", content)
    clear = sealed.clear
    row = replace(row, form="sealed")
    if clear is None:
        return row
    return cleaned(
        replace(
            row,
            died=clear.time if clear.tags is not None else None,
            release=clear.release or None,
            signature=clear.signature or None,
        )
    )


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
            kind=(cause.event or cause.kind).value,
            sentence=cause.sentence,
            **({} if _lives(cause, form) else _blamed(cause)),
            release=report.kernel.release or None,
            build_id=report.kernel.build_id,
            architecture=report.kernel.machine,
            machine=(manifest.vm if manifest else "") or wording.host(report),
            hardware=report.hardware.name if report.hardware else None,
            death_id=(manifest.death_id if manifest else "") or None,
            redacted=report.redacted,
            complete=not report.missing,
            problem=missing or None,
        )
    )


def _manifest(core: Core) -> Manifest | None:
    try:
        return core.manifest
    except KmemdumpError:
        return None  # The report says so.


def _lives(cause: Cause, form: str) -> bool:
    """Return whether nothing says that the kernel died."""
    # A dump is made of a kernel that died; a log of nothing wrong is of any kernel.
    return cause.kind is CauseKind.ALIVE or (
        cause.kind is CauseKind.UNKNOWN and form == "log"
    )


def _blamed(cause: Cause) -> dict[str, Any]:
    """Return what makes deaths a group."""
    signature = cause.signature
    if signature is None:
        return {}
    return {
        "signature": signature.text,
        "signature_version": signature.version,
        "signature_origin": signature.source.value,
        "function": cause.function,
        "module": cause.module,
        "frames": cause.functions or None,
    }


def _death_time(
    report: Report, manifest: Manifest | None, added: datetime
) -> datetime | None:
    watched = manifest is not None and bool(manifest.vm) and not manifest.by_firmware
    # Whoever watched the kernel has a clock that still ran.
    times = [report.time.captured] if watched else []
    times += [report.time.date]
    return next((it for it in times if it and _FIRST <= it <= added + _AHEAD), None)
