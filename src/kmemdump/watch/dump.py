# SPDX-License-Identifier: GPL-2.0-or-later
"""The core image that is written when a VM's kernel dies."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from kmemdump.backends.vm import Dump
from kmemdump.diagnosis.death_kind import DeathKind
from kmemdump.diagnosis.oops_patterns import find_oops
from kmemdump.diagnosis.panic_patterns import find_panic
from kmemdump.errors import KmemdumpError
from kmemdump.formats.elf import NT_PRSTATUS, Note
from kmemdump.kernel.printk import read_log
from kmemdump.marking.capture import Capture, look
from kmemdump.marking.mark import AreaResult, Marking, QuestionResult
from kmemdump.memory.physical import FileMemory, Memory
from kmemdump.memory.ranges import Extent, Range, merge
from kmemdump.targets import Target
from kmemdump.targets.file import FileTarget
from kmemdump.text import format_size, printable
from kmemdump.watch.end_causes import DumpCause
from kmemdump.watch.events import EventName
from kmemdump.watch.reporter import Reporter
from kmemdump.watch.vm_marks import VmMarks

__all__ = ["DumpWriter", "WrittenDump", "write_dump"]

_SECOND_LOOK_SECONDS = 5.0
"""Limit for each question, while the VM stands still."""
_MAX_WORDS = 200
"""Maximum length of the kernel's log about its death, in characters."""
_GONE = "the kernel's memory is gone"


class DumpWriter:
    """
    Writes the core images of one VM, and reports them.

    :param name: Name of the VM, with which the names of core images start.
    :param folder: Where core images are written.
    :param reporter: Gets a line about each core image.
    """

    def __init__(self, name: str, folder: Path, reporter: Reporter) -> None:
        self._name = name
        self._folder = folder
        self._reporter = reporter
        self.cores: list[Path] = []
        """What was written, oldest first."""

    def write(self, marks: VmMarks, cause: DumpCause) -> None:
        """Write a core image of a marked kernel; report it, or the failure."""
        self._reporter.show_status("writing the core image")
        path = self._new_path()
        try:
            written = write_dump(marks, path, cause.cause, cause.kind)
        except (KmemdumpError, OSError) as error:
            text = f"{cause.cause}; no core image: {error}"
            self._reporter.report_problem(
                text, EventName.NO_CORE, kind=cause.kind.value, cause=cause.cause
            )
        else:
            self.cores.append(path)
            self._report(marks, cause, written)

    def _new_path(self) -> Path:
        while True:
            # To the millisecond, so that names sort by time.
            now = datetime.now(UTC)
            stem = f"{self._name}-{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03}Z"
            path = self._folder / f"{stem}.core"
            if not os.path.lexists(path):
                return path
            time.sleep(0.001)

    def _report(self, marks: VmMarks, cause: DumpCause, dump: WrittenDump) -> None:
        named, finished = (t - cause.noticed for t in (dump.named, dump.finished))
        seconds = f"{named:.2f} s"
        if finished > named:
            seconds += f", completed after {finished:.2f} s"
        # The log says nothing of other causes, and may hold an old oops.
        in_log = cause.kind in (DeathKind.OOPS, DeathKind.PANIC)
        words = f": {dump.words}" if dump.words and in_log else ""
        self._reporter.report(
            f"{cause.cause}{words}; {dump.path}, {format_size(dump.size)}, {seconds}",
            EventName.DEATH,
            release=marks.info.osrelease,
            kind=cause.kind.value,
            cause=f"{cause.cause}{words}",
            core=dump.path,
            size=dump.size,
            seconds=round(named, 3),
            complete=dump.problem is None and not dump.missing,
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
    words: str = ""
    """What the kernel logged about its death."""


def write_dump(
    marks: VmMarks, path: Path, cause: str = "", death: DeathKind | None = None
) -> WrittenDump:
    """
    Write the core image of a kernel as it is now, or of what is left of it.

    The memory marked beforehand is written first, without following a pointer of the
    dead kernel. Then the second look finds the changes since the last refresh, and
    replaces the file. If the memory is gone, the copy of the last refresh is written.

    :param cause: The cause, for the core image.
    :param death: The same in one word.
    :raises KmemdumpError: If *path* cannot be written.
    """
    write_core = partial(_write, marks, path, marks.capture.time, cause, death)
    state = marks.read_kernel()
    if state is None or not state.same:
        with closing(_copied_memory(marks.copy)) as memory:
            return write_core(_captured_by_refresh(marks, memory), _GONE)
    registers = _registers(marks.target)
    # The registers of the last refresh do not match the present memory.
    kernel = replace(marks.capture.kernel, registers=registers)
    marked = replace(
        marks.capture,
        kernel=kernel,
        time=datetime.now(UTC),
        memory=marks.target.memory,
    )
    first = write_core(marked)
    capture, problem = _second_look(marks, registers)
    if capture is None:
        capture = replace(marked, marking=_noted(marked.marking, problem))
    else:
        marks.registry.update([*marks.registry, *capture.regions])
    try:
        last = write_core(capture, problem)
    except (KmemdumpError, OSError) as error:
        return replace(first, problem=f"it could not be replaced: {error}")
    words = "" if problem else _last_words(capture)
    return replace(last, named=first.named, words=words)


def _write(
    marks: VmMarks,
    path: Path,
    marked_at: datetime,
    cause: str,
    death: DeathKind | None,
    capture: Capture,
    problem: str | None = None,
) -> WrittenDump:
    missing = capture.save(
        path,
        regions=list(marks.registry),
        packed=marks.packed,
        marked_at=marked_at,
        cause=cause,
        death=death,
    )
    now, size = time.monotonic(), path.stat().st_size
    return WrittenDump(path, size, missing, problem, named=now, finished=now)


def _copied_memory(copy: Dump) -> FileMemory:
    """Return the regions of a copy, which may overlap, as memory."""
    fd = os.memfd_create("kmemdump-copy", os.MFD_CLOEXEC)
    try:
        for region, data in copy.contents:
            os.pwrite(fd, data, region.address)  # A sparse file, like the VM's memory.
    except BaseException:
        os.close(fd)
        raise
    ranges = merge(region.range for region, _ in copy.contents)
    extents = [Extent(item.start, item.size, item.start) for item in ranges]
    return FileMemory(fd, extents, "the copy of the last refresh")


def _captured_by_refresh(marks: VmMarks, memory: Memory) -> Capture:
    """Return what the last refresh copied."""
    return replace(
        marks.capture,
        marking=_noted(marks.capture.marking, _GONE),
        time=datetime.fromtimestamp(marks.copy.time, UTC),
        memory=memory,
    )


def _second_look(
    marks: VmMarks, registers: Sequence[bytes]
) -> tuple[Capture | None, str | None]:
    """Put the questions to the dead kernel; return the marks, or the problem."""
    vm = marks.target
    notes = [Note("CORE", NT_PRSTATUS, status) for status in registers]
    # Only the memory of the VM is still read. The target closes it.
    dead = FileTarget(vm.name, vm.machine, vm.memory, notes, marks.info)
    budget = replace(marks.selection.budget, seconds=_SECOND_LOOK_SECONDS)
    selection = replace(marks.selection, budget=budget)
    if marks.capture.kernel.own_debug_info.found is not None:
        # Loading a vmlinux again takes more than a second. The last refresh
        # has marked the memory that only its answers need.
        selection = replace(selection, vmlinux=None)
    try:
        return look(dead, selection, marks.capture.kernel), None
    except Exception as error:
        # A dead kernel's memory may break drgn in any way.
        problem = f"{type(error).__name__}: {error}".splitlines()[0]
        return None, f"the dead kernel could not be looked at: {problem}"


def _registers(target: Target) -> list[bytes]:
    try:
        return target.registers()
    except KmemdumpError:
        return []  # Reset, gone, or QEMU does not answer.


def _noted(marking: Marking, problem: str | None) -> Marking:
    """Note in the core image why there was no second look."""
    note = QuestionResult("look again after death", problem)
    empty: frozenset[int] = frozenset()
    result = AreaResult("second look", empty, empty, 0.0, (note,))
    return Marking((*marking.areas, result))


def _last_words(capture: Capture) -> str:
    kernel = capture.kernel
    try:
        records = read_log(kernel.prog.read, kernel.vmcoreinfo).records
        cause = find_panic(records) or find_oops(records)
    except Exception:  # Nothing depends on it, and the log may be damaged.
        return ""
    words = printable(cause.sentence.rstrip(".")) if cause else ""
    return words if len(words) <= _MAX_WORDS else f"{words[:_MAX_WORDS]}…"
