# SPDX-License-Identifier: GPL-2.0-or-later
"""
Marking: put questions to a kernel, and find the regions that hold the answers.

A dump is good if it answers people's questions. So the questions are put to the kernel
while it can answer, and every block that they read is marked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
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
from kmemdump.memory.ranges import Range, subtract
from kmemdump.memory.recorder import BLOCK_SIZE, Budget, Reading, block_ranges
from kmemdump.progress import report_progress
from kmemdump.questions.question import Question, attempt, explain, function

__all__ = ["AreaResult", "Marking", "QuestionResult", "hindrance", "mark", "mark_range"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class QuestionResult:
    """The result of a question."""

    text: str
    reason: str | None
    """Why it could not be answered; ``None`` if it was."""
    without_registers: bool = False
    """
    Whether only registers are missing: those of the CPU that runs the task in question.
    Area ``stacks`` has the whole stack.
    """


@dataclass(frozen=True, slots=True)
class AreaResult:
    """The memory that one area needs."""

    name: str
    blocks: frozenset[int]
    """
    Blocks (see :mod:`kmemdump.memory.recorder`) that it needs, shared ones included.
    """
    own: frozenset[int]
    """Blocks that no earlier area needs."""
    seconds: float
    questions: tuple[QuestionResult, ...]
    packed: bool = False
    named: tuple[tuple[str, Range], ...] = ()
    """Ranges in it that have their own names."""

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
) -> Marking:
    """
    Put the questions of *areas*, and further ones, to *kernel*.

    An area that cannot be completed records the reason, and the others go on.

    :param questions: Further questions, which form area ``questions``.
    :param symbols: Names of variables to mark whole, each as an area with its name.
    :param regions: Names, kernel virtual addresses and sizes of regions.
    :param budget: Limit on the cost of each question.
    """
    budget = budget or Budget()
    chosen = list(areas)
    seen: set[int] = set()
    results: list[AreaResult] = []

    def add(found: AreaResult, *, for_crash: bool = True) -> None:
        blocks = found.blocks
        if (
            for_crash and CRASH in chosen
        ):  # crash reads whole pages, whatever a PT_LOAD's size.
            blocks = kernel.recorder.whole_pages(blocks)
        own = frozenset(blocks - seen)
        seen.update(blocks)
        results.append(replace(found, blocks=blocks, own=own))

    for number, item in enumerate(chosen):
        report_progress(f"marking area {item.name}", number, len(chosen))
        if item is SYMBOLS:
            continue
        found = (_mark_kernel if item is KERNEL else _mark_area)(kernel, item, budget)
        if not results:  # All other areas need the blocks that attaching read.
            found = replace(found, blocks=found.blocks | kernel.base_blocks)
        add(found, for_crash=item.for_crash)
    if questions:
        add(_mark_area(kernel, Area("questions", "", tuple(questions)), budget))
    for name in symbols:
        add(_mark_symbol(kernel, name, budget))
    for name, address, size in regions:
        add(mark_range(kernel, name, address, size, budget))
    if SYMBOLS in chosen:
        # Blocks of it that other areas read are kept twice: packed, and unpacked for
        # debuggers that cannot unpack them.
        packed = kernel.own_debug_info.blocks
        reason = _symbols_reason(kernel)
        results.append(AreaResult(SYMBOLS.name, packed, packed, 0.0, reason, True))
    return Marking(tuple(results))


def _symbols_reason(kernel: Kernel) -> tuple[QuestionResult, ...]:
    own = kernel.own_debug_info
    if own.found is not None:
        return ()
    reason = own.problem or "kallsyms and BTF are not in the kernel's memory"
    return (QuestionResult("symbols", reason),)


def _mark_area(kernel: Kernel, area: Area, budget: Budget) -> AreaResult:
    _logger.info("marking area %s", area.name)
    blocks: set[int] = set()
    seconds = 0.0
    answers: list[QuestionResult] = []

    def put(question: Question, *, silent: bool = False) -> None:
        nonlocal seconds
        reading, answer = _put(kernel, question, budget)
        blocks.update(reading.blocks)
        seconds += reading.seconds
        if not silent or answer.reason:
            answers.append(answer)

    if area.variables and kernel.problem is None:

        def variables(prog: Program) -> None:
            for name in area.variables:
                read_symbol(prog, name)

        put(Question("variables", variables), silent=True)
    for question in area.questions:
        put(question)
    return AreaResult(
        area.name, frozenset(blocks), frozenset(), seconds, tuple(answers)
    )


def hindrance(kernel: Kernel, question: Question) -> str | None:
    """Return why *kernel* cannot answer a question at all, if so."""
    if kernel.problem is None or question.bare:
        return None
    return "needs the kernel's symbols and types"


def _put(
    kernel: Kernel, question: Question, budget: Budget
) -> tuple[Reading, QuestionResult]:
    if reason := hindrance(kernel, question):
        return Reading(budget), QuestionResult(question.text, reason)
    try:
        with kernel.recorder.reading(budget, question.text) as reading:
            _, error = attempt(kernel.prog, question)
    except BudgetExceededError as problem:
        return Reading(budget), QuestionResult(question.text, str(problem))
    if error is None or isinstance(error, CommandExitStatusError):
        # The kernel answered, even if grep, for example, found nothing.
        return reading, QuestionResult(question.text, None)
    reason = explain(error)
    if isinstance(error, FaultError) and reading.missing is not None:
        reason += f", not in the target: {reading.missing:#x}"
    running = is_without_registers(error)
    return reading, QuestionResult(question.text, reason, running)


def _mark_kernel(kernel: Kernel, area: Area, budget: Budget) -> AreaResult:
    """Mark the regions that the kernel itself marked, each with its name."""
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
    each = _mark_area(kernel, replace(area, questions=tuple(questions)), budget)
    return replace(
        first,
        blocks=first.blocks | each.blocks,
        seconds=first.seconds + each.seconds,
        questions=first.questions + each.questions,
        named=tuple((name, item) for item, name in named.items()),
    )


def _mark_symbol(kernel: Kernel, name: str, budget: Budget) -> AreaResult:
    def put(prog: Program) -> None:
        if not read_symbol(prog, name):
            raise UsageError(f"the kernel has no symbol {name!r}")

    return _mark_area(kernel, Area(name, "", (Question(name, put),)), budget)


def mark_range(
    kernel: Kernel, name: str, address: int, size: int, budget: Budget
) -> AreaResult:
    """Mark a range of kernel virtual memory."""

    def put(prog: Program) -> None:
        if not 0 < size <= budget.bytes:
            raise UsageError(f"{size} bytes, expected 1 to {budget.bytes}")
        prog.read(address, size)

    return _mark_area(kernel, Area(name, "", (Question(name, put),)), budget)
