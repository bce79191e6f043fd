# SPDX-License-Identifier: GPL-2.0-or-later
"""The core image that is written when a VM's kernel dies."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from kmemdump.bounds.steps import held
from kmemdump.coreimage import Death
from kmemdump.coreimage.folder import SUFFIX, CoreFolder
from kmemdump.errors import KmemdumpError, OutputError
from kmemdump.marking.again import look_again
from kmemdump.marking.capture import Capture
from kmemdump.marking.mark import AreaResult, Marking, QuestionResult
from kmemdump.memory.physical import Memory
from kmemdump.memory.ranges import Range
from kmemdump.sealing import Seal
from kmemdump.text import format_size
from kmemdump.watch.death.facts import DeathFacts
from kmemdump.watch.death.memory import copied_memory, dead_target, read_registers
from kmemdump.watch.end_causes import DumpCause
from kmemdump.watch.events import EventFields, EventName
from kmemdump.watch.reporter import Reporter
from kmemdump.watch.vm_marks import VmMarks

__all__ = ["DumpWriter", "WrittenDump", "write_dump"]

_SECOND_LOOK_SECONDS = 5.0
"""CPU seconds for each question, while the VM stands still."""
_SECOND_LOOK_PATIENCE = 15.0
"""Seconds for each, since the VM waits: what was marked is written already."""
_EXTRA = 1 << 20
"""Bytes of a core image beside the memory: notes, and what the second look adds."""
_GONE = "the kernel's memory is gone"


class DumpWriter:
    """
    Writes the core images of one VM, and reports them.

    :param name: Name of the VM, with which the names of core images start.
    :param folder: Where core images are written.
    :param reporter: Gets a line about each core image.
    :param seal: How they are sealed.
    """

    def __init__(
        self,
        name: str,
        folder: CoreFolder,
        reporter: Reporter,
        seal: Seal | None = None,
    ) -> None:
        self._name = name
        self._folder = folder
        self._reporter = reporter
        self._seal = seal

    def find_problem(self, marks: VmMarks) -> str | None:
        """Return why there is no room for a core image now."""
        with self._reserved(marks) as problem:
            return problem

    def write(
        self, marks: VmMarks, cause: DumpCause, facts: DeathFacts
    ) -> Path | OutputError:
        """
        Write a core image of a marked kernel, and report it.

        :return: Its path, or why it could not be written.
        """
        self._reporter.show_status("writing the core image")
        death = Death(cause.text, cause.kind, facts.signature, facts.id, self._name)
        try:
            with held(), self._reserved(marks) as problem:
                if problem is not None:
                    return OutputError(problem)
                path = self._new_path()
                written = write_dump(marks, path, death, self._sealed(death))
        except OutputError as error:
            return error
        except (KmemdumpError, OSError) as error:
            return OutputError(str(error))
        self._report(marks, cause, facts, written)
        for name in self._folder.trim({path.name}):
            text = f"deleted {name}, to stay within the limits"
            core = self._folder.path / name
            self._reporter.report(text, EventName.DELETED, core=core)
        return path

    def _sealed(self, death: Death) -> Seal | None:
        if self._seal is None:
            return None
        tags = self._folder.tags(death.vm, death.signature, death.id)
        return replace(self._seal, tags=tags)

    def _reserved(self, marks: VmMarks) -> AbstractContextManager[str | None]:
        size = marks.size + marks.packed_size + _EXTRA
        # The file that the second look replaces and the new one exist together.
        return self._folder.reserve(size, beside=size)

    def _new_path(self) -> Path:
        while True:
            # To the millisecond, so that names sort by time.
            now = datetime.now(UTC)
            stem = f"{self._name}-{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03}Z"
            path = self._folder.path / f"{stem}{SUFFIX}"
            if not os.path.lexists(path):
                return path
            time.sleep(0.001)

    def _report(
        self, marks: VmMarks, cause: DumpCause, facts: DeathFacts, dump: WrittenDump
    ) -> None:
        facts = facts.shown(self._seal)
        named, finished = (t - cause.noticed for t in (dump.named, dump.finished))
        seconds = f"{named:.2f} s"
        if finished > named:
            seconds += f", completed after {finished:.2f} s"
        words = f": {facts.words}" if facts.words else ""
        fields = EventFields(
            release=marks.info.osrelease,
            kind=cause.kind.value,
            cause=f"{cause.text}{words}",
            core=dump.path,
            size=dump.size,
            seconds=round(named, 3),
            complete=dump.problem is None and not dump.missing,
        )
        self._reporter.report(
            f"{cause.text}{words}; {dump.path}, {format_size(dump.size)}, {seconds}",
            EventName.DEATH,
            **(fields | facts.signature_fields),
        )
        if dump.problem:
            self._reporter.report_problem(
                f"{dump.path} has what was marked before: "
                f"{dump.problem.splitlines()[0]}"
            )
        if dump.missing:
            self._reporter.report_problem(
                f"{dump.path} lacks {len(dump.missing)} ranges of memory"
            )


@dataclass(frozen=True, slots=True)
class WrittenDump:
    """A core image that was written."""

    path: Path
    size: int
    """In bytes."""
    missing: Sequence[Range]
    """Physical memory that is registered and could not be read."""
    problem: str | None
    """Why it holds only what was marked before the death."""
    named: float
    """When a file of that name existed: seconds of the monotonic clock."""
    finished: float
    """When the final file existed, after the second look."""


def write_dump(
    marks: VmMarks, path: Path, death: Death, seal: Seal | None = None
) -> WrittenDump:
    """
    Write the core image of a kernel as it is now, or of what is left of it.

    The memory marked beforehand is written first, without following a pointer of the
    dead kernel. Then the second look finds the changes since the last refresh, and
    replaces the file. If the memory is gone, the copy of the last refresh is written.

    :param death: The death, for the core image.
    :param seal: How it is sealed.
    :raises OutputError: If *path* cannot be written.
    """
    write_core = partial(_write, marks, path, marks.capture.time, death, seal)
    state = marks.read_kernel()
    if state is None or not state.same:
        return _write_copy(marks, write_core, _GONE)
    registers = read_registers(marks.target)
    # The registers of the last refresh do not match the present memory.
    kernel = replace(marks.capture.kernel, registers=registers)
    marked = replace(
        marks.capture,
        kernel=kernel,
        time=datetime.now(UTC),
        memory=marks.target.memory,
    )
    try:
        first = write_core(marked)
    except OutputError:
        raise
    except Exception as error:  # A dead kernel's memory may break anything.
        return _write_copy(marks, write_core, f"the memory is damaged: {error}")
    capture, problem = _second_look(marks, registers)
    if capture is None:
        capture = replace(marked, marking=_noted(marked.marking, problem))
    else:
        marks.registry.update([*marks.registry, *capture.regions])
    try:
        last = write_core(capture, problem)
    except (KmemdumpError, OSError) as error:
        return replace(first, problem=f"it could not be replaced: {error}")
    return replace(last, named=first.named)


def _write(
    marks: VmMarks,
    path: Path,
    marked_at: datetime,
    death: Death,
    seal: Seal | None,
    capture: Capture,
    problem: str | None = None,
) -> WrittenDump:
    missing = capture.save(
        path,
        regions=list(marks.registry),
        packed=marks.packed,
        marked_at=marked_at,
        death=death,
        seal=seal,
    )
    now, size = time.monotonic(), path.stat().st_size
    return WrittenDump(path, size, missing, problem, named=now, finished=now)


def _write_copy(
    marks: VmMarks,
    write_core: Callable[[Capture, str | None], WrittenDump],
    problem: str,
) -> WrittenDump:
    """Write what the last refresh copied, since the memory is of no use."""
    with copied_memory(marks.copy) as memory:
        return write_core(_captured_by_refresh(marks, memory, problem), problem)


def _captured_by_refresh(marks: VmMarks, memory: Memory, problem: str) -> Capture:
    """Return what the last refresh copied."""
    return replace(
        marks.capture,
        marking=_noted(marks.capture.marking, problem),
        time=datetime.fromtimestamp(marks.copy.time, UTC),
        memory=memory,
    )


def _second_look(
    marks: VmMarks, registers: Sequence[bytes]
) -> tuple[Capture | None, str | None]:
    """Put the questions to the dead kernel; return the marks, or the problem."""
    # Only the memory of the VM is still read. Its target closes it.
    dead = dead_target(marks, marks.target.memory, registers)
    budget = replace(
        marks.selection.budget,
        seconds=_SECOND_LOOK_SECONDS,
        patience=_SECOND_LOOK_PATIENCE,
    )
    selection = replace(marks.selection, budget=budget)
    if marks.capture.kernel.own_debug_info.found is not None:
        # Loading a vmlinux again takes more than a second. The last refresh
        # has marked the memory that only its answers need.
        selection = replace(selection, vmlinux=None)
    try:
        return look_again(marks.capture, dead, selection), None
    except Exception as error:
        # A dead kernel's memory may break drgn in any way.
        problem = f"{type(error).__name__}: {error}".splitlines()[0]
        return None, f"the dead kernel could not be looked at: {problem}"


def _noted(marking: Marking, problem: str | None) -> Marking:
    """Note in the core image why there was no second look."""
    note = QuestionResult("look again after death", problem)
    empty: frozenset[int] = frozenset()
    result = AreaResult("second look", empty, empty, 0.0, (note,))
    return Marking((*marking.areas, result))
