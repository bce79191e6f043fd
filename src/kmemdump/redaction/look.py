# SPDX-License-Identifier: GPL-2.0-or-later
"""Put all questions of a core image to it, and note how each byte was read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from drgn import Program

from kmemdump.areas import AREAS
from kmemdump.areas.area import read_symbol
from kmemdump.areas.contents import text_of_area
from kmemdump.areas.simple import KERNEL
from kmemdump.coreimage import Manifest
from kmemdump.errors import BudgetExceededError, UsageError
from kmemdump.kernel.attach import Kernel, attach
from kmemdump.kernel.build_cache import BuildCache
from kmemdump.kernel.registered_regions import find_kernel_regions
from kmemdump.marking.mark import hindrance
from kmemdump.memory.reading import Budget
from kmemdump.questions.crash_commands import command
from kmemdump.questions.question import Question, attempt, explain
from kmemdump.redaction.reads import ByteRecorder
from kmemdump.report.gather import gather
from kmemdump.targets.file import FileTarget

__all__ = ["Answer", "Look", "look"]

_logger = logging.getLogger(__name__)
_BUDGET = Budget(reads=20_000_000, bytes=512 << 20, seconds=120)
_QUESTIONS = "questions"
"""Area of the questions that were named when the memory was marked."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a core image answers to a question."""

    area: str
    question: str
    text: str
    problem: str | None
    """Why there is no answer, or only a part of it."""


@dataclass(frozen=True, slots=True)
class Look:
    """A core image that was asked everything."""

    kernel: Kernel
    recorder: ByteRecorder
    answers: list[Answer]
    unasked: list[str]
    """Questions in its manifest that nobody can ask without the file they are in."""


def look(
    target: FileTarget,
    manifest: Manifest,
    questions: Sequence[Question] = (),
    builds: BuildCache | None = None,
) -> Look:
    """
    Ask a core image everything that its areas, a report and the user ask.

    :param questions: Of the user.
    :raises KmemdumpError: If there is no kernel that can be looked at.
    """
    recorder = ByteRecorder(target.memory)
    recorder.begin("module-names")  # Attaching reads names of modules and sections.
    kernel = attach(target, builds=builds, recorder=recorder)
    unasked: list[str] = []
    answers: list[Answer] = []
    for area, question in _questions(manifest, questions, unasked):
        _logger.info("asking %s", question.text)
        recorder.begin(text_of_area(area))
        answers.append(_ask(kernel, area, question))
    recorder.begin("")
    report = gather(
        kernel, target.name, manifest, held=target.memory.ranges, budget=_BUDGET
    )
    answers.append(Answer("report", "report", report.to_text(), None))
    return Look(kernel, recorder, answers, unasked)


def _questions(
    manifest: Manifest, own: Sequence[Question], unasked: list[str]
) -> Iterator[tuple[str, Question]]:
    held = {area.name for area in manifest.areas}
    # What firmware saved has no list of areas.
    for area in AREAS:
        if area.name not in held and (held or not area.default):
            continue
        if area.variables:
            yield area.name, Question("variables", _variables(area.variables))
        if area is KERNEL:
            yield area.name, Question("registered regions", _registered)
        for question in area.questions:
            yield area.name, question
    known = {area.name for area in AREAS}
    for record in manifest.areas:
        if record.name in known:
            continue
        if record.name != _QUESTIONS and [it.text for it in record.questions] == [
            record.name
        ]:
            yield record.name, Question(record.name, _variables((record.name,)))
            continue
        for item in record.questions:
            yield from _safe(record.name, item.text, own, unasked)
    for item in manifest.questions:
        yield from _safe(_QUESTIONS, item.text, own, unasked)
    for question in own:
        yield _QUESTIONS, question


def _safe(
    area: str, text: str, own: Sequence[Question], unasked: list[str]
) -> Iterator[tuple[str, Question]]:
    """Yield a question that a file lists, if it runs neither Python nor a shell."""
    if any(it.text == text for it in own):
        return
    try:
        yield area, command(text)
    except UsageError:
        unasked.append(text)


def _variables(names: Sequence[str]) -> Callable[[Program], None]:
    def put(prog: Program) -> None:
        for name in names:
            read_symbol(prog, name)

    return put


def _registered(prog: Program) -> None:
    for region in find_kernel_regions(prog):
        print(region.name)
        prog.read(region.address, region.size)


def _ask(kernel: Kernel, area: str, question: Question) -> Answer:
    reason = hindrance(kernel, question)
    if reason is not None:
        return Answer(area, question.text, "", reason)
    try:
        with kernel.recorder.reading(_BUDGET, question.text):
            text, error = attempt(kernel.prog, question)
    except BudgetExceededError as problem:
        return Answer(area, question.text, "", str(problem))
    return Answer(area, question.text, text, None if error is None else explain(error))
