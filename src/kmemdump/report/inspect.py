# SPDX-License-Identifier: GPL-2.0-or-later
"""
Inspect a core image: its contents, whether it can be trusted, and its debuggers.

The file's memory is compared with its checksums, and our own questions are put to the
kernel in it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from kmemdump.areas import AREAS, Area
from kmemdump.coreimage import (
    AreaRecord,
    Manifest,
    QuestionRecord,
    RegionRecord,
    verify,
)
from kmemdump.debuggers.compatibility import Debugger, describe_file, find_debuggers
from kmemdump.diagnosis.records import ADDRESS
from kmemdump.errors import BudgetExceededError, FormatError, KmemdumpError
from kmemdump.kernel.attach import Kernel, attach
from kmemdump.kernel.build_cache import BuildCache
from kmemdump.marking.mark import hindrance
from kmemdump.questions.question import attempt, explain
from kmemdump.report.sections import SECTION_BUDGET
from kmemdump.targets import Target
from kmemdump.targets.file import FileTarget
from kmemdump.targets.vmcore import core_of

__all__ = ["Inspection", "QuestionCheck", "inspect", "read_manifest", "shorten"]

_logger = logging.getLogger(__name__)
_MOST_PROBLEMS = 5


@dataclass(frozen=True, slots=True)
class QuestionCheck:
    """Whether a question was answered."""

    area: str
    question: str
    answered: bool
    reason: str = ""
    """Why it was not answered."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """The contents of a file with a kernel's memory."""

    source: str
    size: int | None
    """Size of the file in bytes."""
    release: str | None
    build_id: str | None
    machine: int
    """``e_machine`` of its ELF files."""
    cpus: int
    """Number of CPUs whose registers are in it."""
    bytes: int
    """Bytes of physical memory, packed or not."""
    ranges: int
    """Number of contiguous ranges of it."""
    kernel_offset: int | None = field(default=None, metadata=ADDRESS)
    tool: str | None = None
    """Which program wrote it; ``None`` (with all below) if it was not kmemdump."""
    backend: str | None = None
    cause: str | None = None
    """Why it was written, as reported by the watcher of the kernel."""
    redacted: str | None = None
    """Names of the policies by which data was removed from it."""
    captured: datetime | None = None
    marked: datetime | None = None
    areas: Sequence[AreaRecord] = ()
    questions: Sequence[QuestionRecord] = ()
    regions: Sequence[RegionRecord] = ()
    problems: Sequence[str] = ()
    """Where the file differs from its manifest, checksums included."""
    debuggers: Sequence[Debugger] = ()
    tried: Sequence[QuestionCheck] = ()
    """kmemdump's own questions, and whether this file answers them."""
    unanswerable: str | None = None
    """Why no question, or hardly any, can be answered."""

    @property
    def broken(self) -> list[QuestionCheck]:
        """Unanswered questions of areas that are complete according to the file."""
        if self.unanswerable is not None:
            return []
        complete = {area.name for area in self.areas if area.complete}
        return [
            item for item in self.tried if item.area in complete and not item.answered
        ]


def read_manifest(target: Target) -> tuple[Manifest | None, list[str]]:
    """
    Return the manifest of a target, and where it is wrong.

    :return: ``None`` if the target is not a core image of ours, and what its file
        lacks.
    """
    core = core_of(target)
    try:
        if core is None or core.manifest is None:
            return None, _lacks(target)
        return core.manifest, verify(core)
    except FormatError as error:
        return None, [str(error)]


def _lacks(target: Target) -> list[str]:
    return target.lacks if isinstance(target, FileTarget) else []


def shorten(problems: Sequence[str]) -> list[str]:
    """Return the first few problems: a damaged file can have one for each region."""
    more = len(problems) - _MOST_PROBLEMS
    rest = [f"and {more} more like these"] if more > 0 else []
    return [*problems[:_MOST_PROBLEMS], *rest]


def inspect(
    target: Target,
    path: Path | None,
    *,
    vmlinux: Path | None = None,
    builds: BuildCache | None = None,
) -> Inspection:
    """
    Find out what is in a target, from its manifest and by putting questions.

    :param path: The target's file; ``None`` if the target is not a regular file.
    :param vmlinux: As for :func:`kmemdump.kernel.attach.attach`.
    :param builds: Likewise.
    :raises KmemdumpError: If it cannot be read.
    """
    kernel, hindered = None, None
    try:
        # First: what this reads of the file need not be read once more to verify it.
        kernel = attach(target, vmlinux=vmlinux, builds=builds, marking=False)
    except KmemdumpError as error:
        hindered = str(error)
    core = core_of(target)
    _logger.info("comparing checksums")
    problems = verify(core) if core is not None else _lacks(target)
    found = _describe(target, path, problems)
    if kernel is None:
        return replace(found, unanswerable=hindered)
    held = {area.name for area in found.areas}
    # Another program's dump has all memory: try the areas marked by default.
    areas = [a for a in AREAS if (a.name in held if held else a.default)]
    tried = tuple(_check_questions(kernel, areas))
    return replace(found, tried=tried, unanswerable=kernel.problem)


def _check_questions(kernel: Kernel, areas: Iterable[Area]) -> Iterator[QuestionCheck]:
    """Put the questions of our own areas; the questions that a file lists never run."""
    for area in areas:
        for question in area.questions:
            _logger.info("asking %s", question.text)
            reason = hindrance(kernel, question) or ""
            if not reason:
                error: BaseException | None
                try:
                    with kernel.recorder.reading(SECTION_BUDGET, question.text):
                        _, error = attempt(kernel.prog, question)
                except BudgetExceededError as problem:
                    error = problem
                reason = "" if error is None else explain(error)
            yield QuestionCheck(area.name, question.text, not reason, reason)


def _describe(target: Target, path: Path | None, problems: Sequence[str]) -> Inspection:
    try:
        info = target.vmcoreinfo()
    except KmemdumpError:
        info = None
    file = describe_file(target, path or Path(target.name), info)
    manifest, memory = file.manifest, target.memory.ranges
    return Inspection(
        source=target.name,
        size=path.stat().st_size if path is not None else None,
        release=file.release,
        build_id=file.build_id,
        machine=target.machine,
        cpus=len(target.registers()),
        bytes=sum(item.size for item in memory),
        ranges=len(memory),
        kernel_offset=file.offset,
        tool=manifest.tool if manifest else None,
        backend=manifest.backend if manifest else None,
        cause=(manifest.cause or None) if manifest else None,
        redacted=(manifest.redacted or None) if manifest else None,
        captured=manifest.time if manifest else None,
        marked=manifest.marked_at if manifest else None,
        areas=manifest.areas if manifest else (),
        questions=manifest.questions if manifest else (),
        regions=manifest.regions if manifest else (),
        problems=problems,
        debuggers=tuple(find_debuggers(file)) if path is not None else (),
    )
