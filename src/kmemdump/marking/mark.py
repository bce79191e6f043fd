# SPDX-License-Identifier: GPL-2.0-or-later
"""
Marking: put questions to a kernel, and find the regions that hold the answers.

A dump is good if it answers people's questions. So the questions are put to the kernel
while it can answer, and every block that they read is marked.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from drgn import FaultError, Program
from drgn.commands import CommandExitStatusError

from kmemdump.areas import Area
from kmemdump.areas.area import read_symbol
from kmemdump.areas.crash import CRASH
from kmemdump.areas.simple import KERNEL, SYMBOLS
from kmemdump.errors import BudgetExceededError, UsageError
from kmemdump.kernel.attach import Kernel
from kmemdump.kernel.registered_regions import (
    KernelRegion,
    find_kernel_regions,
    physical_ranges,
)
from kmemdump.kernel.tasks import is_without_registers
from kmemdump.marking.asked import Asked, QuestionResult
from kmemdump.memory.ranges import Range, subtract
from kmemdump.memory.reading import Budget, Part, PartReads, Reading, block_ranges
from kmemdump.memory.spans import BLOCK_SIZE, Changes
from kmemdump.progress import report_progress
from kmemdump.questions.objects import each
from kmemdump.questions.question import Question, attempt, explain, function

__all__ = [
    "NO_CHANGES",
    "AreaResult",
    "Marking",
    "QuestionResult",
    "find_hidden",
    "hindrance",
    "mark",
]

_logger = logging.getLogger(__name__)
_VARIABLES = "variables"
"""The question that reads an area's variables, which no user asked."""
NO_CHANGES = Changes()


@dataclass(frozen=True, slots=True)
class AreaResult:
    """The memory that one area needs."""

    name: str
    blocks: frozenset[int]
    """
    Blocks (see :mod:`kmemdump.memory.spans`) that it needs, shared ones included.
    """
    own: frozenset[int]
    """Blocks that no earlier area needs."""
    seconds: float
    questions: tuple[QuestionResult, ...]
    packed: bool = False
    named: tuple[tuple[str, Range], ...] = ()
    """Ranges in it that have their own names."""
    needs: frozenset[int] = frozenset()
    """The blocks that were read; *blocks* also has the rest of pages for crash."""
    asked: tuple[Asked, ...] = field(default=(), repr=False, compare=False)
    """What its questions read, for the next look."""

    @property
    def reason(self) -> str | None:
        """Why the area is incomplete; ``None`` if it is complete."""
        failed = [question for question in self.questions if question.reason]
        reasons = [
            f"{item.reason}"
            if item.text == self.name
            else f"{item.text}: {item.reason}"
            for item in failed
        ]
        return "; ".join(reasons) or None

    @property
    def ranges(self) -> list[Range]:
        """The ranges that only this area adds."""
        return block_ranges(self.own)


@dataclass(frozen=True, slots=True)
class Marking:
    """The results of all areas, in order."""

    areas: tuple[AreaResult, ...]

    @property
    def complete(self) -> bool:
        """Whether each area is complete."""
        return all(area.reason is None for area in self.areas)

    @property
    def size(self) -> int:
        """Bytes of memory that are marked."""
        return sum(len(area.own) for area in self.areas) * BLOCK_SIZE

    def named_ranges(self) -> list[tuple[str, Range]]:
        """Return names and ranges to register; packed areas have none."""
        found: list[tuple[str, Range]] = []
        for area in self.areas:
            if not area.packed:
                found += area.named
                rest = subtract(area.ranges, [item for _, item in area.named])
                found += ((f"{area.name}@{item.start:x}", item) for item in rest)
        return found


def mark(
    kernel: Kernel,
    areas: Iterable[Area],
    *,
    questions: Sequence[Question] = (),
    symbols: Sequence[str] = (),
    regions: Sequence[tuple[str, int, int]] = (),
    budget: Budget | None = None,
    before: Marking | None = None,
    changes: Changes = NO_CHANGES,
) -> Marking:
    """
    Put the questions of *areas*, and further ones, to *kernel*.

    An area that cannot be completed records the reason, and the others go on.

    :param questions: Further questions, which form area ``questions``.
    :param symbols: Names of variables to mark whole, each as an area with its name.
    :param regions: Names, kernel virtual addresses and sizes of regions.
    :param budget: Limit on the cost of each question.
    :param before: The same areas, at an earlier look by the same program; only what
        changed is asked for again.
    :param changes: What changed since.
    """
    budget = budget or Budget()
    chosen = list(areas)
    found: list[AreaResult] = []
    widened: list[bool] = []
    earlier = iter(before.areas if before is not None else ())

    def add(area: Area, function: Callable[..., AreaResult] = _mark_area) -> None:
        found.append(function(kernel, area, budget, next(earlier, None), changes))
        # crash reads whole pages, whatever a PT_LOAD's size.
        widened.append(area.for_crash and CRASH in chosen)

    for number, item in enumerate(chosen):
        report_progress(f"marking area {item.name}", number, len(chosen))
        if item is not SYMBOLS:
            add(item, _mark_kernel if item is KERNEL else _mark_area)
    if questions:
        add(Area("questions", "", tuple(questions)))
    for name in symbols:
        add(_area_of_symbol(name))
    for name, address, size in regions:
        add(_area_of_range(name, address, size, budget))
    if before is not None and all(map(operator.is_, found, before.areas)):
        return before
    results = _share(kernel, found, widened)
    if SYMBOLS in chosen:
        # Blocks of it that other areas read are kept twice: packed, and unpacked for
        # debuggers that cannot unpack them.
        packed = kernel.own_debug_info.blocks
        reason = _symbols_reason(kernel)
        results.append(AreaResult(SYMBOLS.name, packed, packed, 0.0, reason, True))
    return Marking(tuple(results))


def _share(
    kernel: Kernel, found: Sequence[AreaResult], widened: Sequence[bool]
) -> list[AreaResult]:
    """Find out which blocks each area is the first to need."""
    seen: set[int] = set()
    results: list[AreaResult] = []
    for area, whole in zip(found, widened, strict=True):
        blocks = area.needs
        if not results:  # All other areas need the blocks that attaching read.
            blocks |= kernel.base_blocks
        if whole:
            blocks = kernel.recorder.whole_pages(blocks)
        results.append(replace(area, blocks=blocks, own=frozenset(blocks - seen)))
        seen.update(blocks)
    return results


def _symbols_reason(kernel: Kernel) -> tuple[QuestionResult, ...]:
    own = kernel.own_debug_info
    if own.found is not None:
        return ()
    reason = own.problem or "kallsyms and BTF are not in the kernel's memory"
    return (QuestionResult("symbols", reason),)


def _mark_area(
    kernel: Kernel,
    area: Area,
    budget: Budget,
    before: AreaResult | None = None,
    changes: Changes = NO_CHANGES,
) -> AreaResult:
    """
    Mark an area.

    :param before: The same area at an earlier look; only what changed is asked again.
    :param changes: What changed since.
    """
    _logger.info("marking area %s", area.name)
    questions = list(area.questions)
    if area.variables and kernel.problem is None:

        def variables(prog: Program) -> None:
            for name in each("variables", area.variables):
                read_symbol(prog, name)

        questions.insert(0, Question(_VARIABLES, variables))
    if before is None or len(before.asked) != len(questions):
        asked = tuple(_ask(kernel, it, budget) for it in questions)
    else:
        asked = tuple(
            _ask_again(kernel, it, budget, known, changes)
            for it, known in zip(questions, before.asked, strict=True)
        )
        if all(map(operator.is_, asked, before.asked)):
            return before
    needs = frozenset[int]().union(*(it.blocks for it in asked))
    return AreaResult(
        area.name,
        needs,
        frozenset(),
        sum(it.seconds for it in asked),
        tuple(
            it.result
            for it in asked
            if it.result.text != _VARIABLES or it.result.reason
        ),
        needs=needs,
        asked=asked,
    )


def hindrance(kernel: Kernel, question: Question) -> str | None:
    """Return why *kernel* cannot answer a question at all, if so."""
    if kernel.problem is None or question.bare:
        return None
    return "needs the kernel's symbols and types"


def _ask(kernel: Kernel, question: Question, budget: Budget) -> Asked:
    return Asked.of(question, *_put(kernel, question, budget))


def _ask_again(
    kernel: Kernel, question: Question, budget: Budget, before: Asked, changes: Changes
) -> Asked:
    """Ask for what changed of an answer; return *before* if nothing did."""
    changed = {part for part, reads in before.parts.items() if reads.changed(changes)}
    if not changed and not before.frame.changed(changes):
        return before
    cached = len(kernel.prog.cache)
    if before.result.reason is not None:
        # It is not known which part is to blame.
        found = _ask(kernel, question, budget).remembering(before.hidden)
    else:
        unchanged = before.parts.keys() - changed
        found = before.updated(*_put(kernel, question, budget, unchanged))
    if len(kernel.prog.cache) > cached:
        # What drgn keeps in its program is not read next time.
        found = _find_hidden(kernel, budget, found)
    return found


def find_hidden(kernel: Kernel, marking: Marking, budget: Budget) -> Marking:
    """
    Find out what drgn has kept in its program, by putting all questions again.

    The recorder must not have read again what may have changed since.
    """
    areas = (
        replace(
            area, asked=tuple(_find_hidden(kernel, budget, it) for it in area.asked)
        )
        for area in marking.areas
    )
    return Marking(tuple(areas))


def _find_hidden(kernel: Kernel, budget: Budget, asked: Asked) -> Asked:
    """Find blocks that the answer needs, and that are read no more."""
    reading, result = _put(kernel, asked.question, budget)
    if result != asked.result:
        return asked  # Such as one that took too long.
    return asked.remembering(asked.blocks - reading.blocks)


def _put(
    kernel: Kernel,
    question: Question,
    budget: Budget,
    unchanged: Collection[Part] = (),
) -> tuple[Reading, QuestionResult]:
    if reason := hindrance(kernel, question):
        return Reading(budget), QuestionResult(question.text, reason)
    try:
        with kernel.recorder.reading(budget, question.text, unchanged) as reading:
            _, error = attempt(kernel.prog, question)
    except BudgetExceededError as problem:
        nothing = Reading(budget, PartReads.pack(set(), volatile=True))
        return nothing, QuestionResult(question.text, str(problem))
    if error is None or isinstance(error, CommandExitStatusError):
        # The kernel answered, even if grep, for example, found nothing.
        return reading, QuestionResult(question.text, None)
    reason = explain(error)
    if isinstance(error, FaultError) and reading.missing is not None:
        reason += f", not in the target: {reading.missing:#x}"
    running = is_without_registers(error)
    return reading, QuestionResult(question.text, reason, running)


def _mark_kernel(
    kernel: Kernel,
    area: Area,
    budget: Budget,
    before: AreaResult | None,
    changes: Changes,
) -> AreaResult:
    """Mark the regions that the kernel itself marked, each with its name."""
    if before is not None and not any(it.changed(changes) for it in before.asked):
        return before
    found: list[KernelRegion] = []
    named: dict[Range, str] = {}

    def tables(prog: Program) -> None:
        found.extend(find_kernel_regions(prog))

    def read(prog: Program, region: KernelRegion) -> None:
        ranges = physical_ranges(prog, region.address, region.size)
        prog.read(region.address, region.size)
        for virtual, item in ranges:
            offset = virtual - region.address
            name = f"{region.name}+{offset:#x}" if offset else region.name
            named.setdefault(item, name)

    first = _mark_area(kernel, replace(area, questions=(function(tables),)), budget)
    questions = [
        Question(f"{it.table} {it.id} {it.name}", partial(read, region=it))
        for it in found
    ]
    rest = _mark_area(kernel, replace(area, questions=tuple(questions)), budget)
    needs = first.needs | rest.needs
    return replace(
        first,
        blocks=needs,
        needs=needs,
        asked=first.asked + rest.asked,
        seconds=first.seconds + rest.seconds,
        questions=first.questions + rest.questions,
        named=tuple((name, item) for item, name in named.items()),
    )


def _area_of_symbol(name: str) -> Area:
    def put(prog: Program) -> None:
        if not read_symbol(prog, name):
            raise UsageError(f"the kernel has no symbol {name!r}")

    return Area(name, "", (Question(name, put),))


def _area_of_range(name: str, address: int, size: int, budget: Budget) -> Area:
    """Return an area with a range of kernel virtual memory."""

    def put(prog: Program) -> None:
        if not 0 < size <= budget.bytes:
            raise UsageError(f"{size} bytes, expected 1 to {budget.bytes}")
        prog.read(address, size)

    return Area(name, "", (Question(name, put),))
