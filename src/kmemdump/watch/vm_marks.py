# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps marked what a kernel's core image needs, and writes it when the kernel dies."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from kmemdump.backends.vm import VmBackend
from kmemdump.diagnosis.oops_patterns import find_oops
from kmemdump.diagnosis.panic_patterns import find_panic
from kmemdump.errors import KmemdumpError, NotCapturedError
from kmemdump.kernel.printk import read_log
from kmemdump.marking.capture import Capture, look
from kmemdump.marking.mark import AreaResult, Marking, QuestionResult, total_bytes
from kmemdump.marking.registry import Registry
from kmemdump.marking.selection import Selection
from kmemdump.memory.ranges import Range, merge
from kmemdump.targets import Target
from kmemdump.text import printable
from kmemdump.vmcoreinfo import VmcoreInfo
from kmemdump.watch.dead_vm import DumpMemory, Remains
from kmemdump.watch.liveness import Signs, Vitals

__all__ = ["Keeper", "Saved"]

_MAX_BYTES = 256 << 20
"""Most that the copy of each refresh may hold."""
_SECOND_LOOK_SECONDS = 5.0
"""For each question, while the VM stands still."""
_MAX_WORDS = 200
_GONE = "the kernel's memory is gone"


@dataclass(frozen=True, slots=True)
class Saved:
    """A core image that was written."""

    path: Path
    size: int
    """In bytes."""
    areas: Sequence[AreaResult]
    missing: Sequence[Range]
    """Physical memory that is registered and could not be read."""
    problem: str | None
    """Why old marks had to do."""
    named: float
    """When there was a file of that name: seconds of the monotonic clock."""
    finished: float
    """When it was the last one, after the dead kernel was looked at."""
    words: str = ""
    """What the kernel said last about its death."""

    @property
    def complete(self) -> bool:
        return not self.missing and all(area.reason is None for area in self.areas)


class Keeper:
    """
    Marks a kernel.

    :param target: The VM; stays the caller's.
    :param selection: What to mark.
    :raises KmemdumpError: If there is no kernel that can be looked at.
    """

    def __init__(self, target: Target, selection: Selection) -> None:
        self._target = target
        self._selection = selection
        self.capture: Capture = look(target, selection)
        self.vitals = Vitals(self.capture.kernel)
        self._packed = self.capture.pack()
        self._backend = VmBackend(target.memory, max_bytes=_MAX_BYTES)
        self.registry = Registry(target.memory.ranges)
        self.registry.attach(self._backend)
        self._register(self.capture)

    @property
    def info(self) -> VmcoreInfo:
        """Of the kernel that is marked."""
        return self.capture.kernel.vmcoreinfo

    @property
    def size(self) -> int:
        """Size of the regions in bytes."""
        return sum(item.size for item in merge(item.range for item in self.registry))

    @property
    def packed_size(self) -> int:
        """Size of what never changes, in bytes, before it is compressed."""
        return total_bytes(
            Marking(tuple(area for area in self.capture.marking.areas if area.packed))
        )

    def signs(self) -> Signs | None:
        """Return the vital signs, or None if the memory is gone."""
        try:
            return self.vitals.read(self._target.memory)
        except NotCapturedError:
            return None

    def refresh(self) -> None:
        """
        Mark again what changed.

        :raises KmemdumpError: If that fails; what was marked before stays.
        """
        capture = look(self._target, self._selection, self.capture.kernel)
        vitals = Vitals(capture.kernel)
        self.capture, self.vitals = capture, vitals
        self._register(capture)

    def _register(self, capture: Capture) -> None:
        self.registry.update(capture.regions)
        self._copy = self._backend.dump()

    def save(self, path: Path, cause: str = "") -> Saved:
        """
        Write the core image of the kernel as it is now, or of what is left of it.

        What was marked beforehand is written first: that follows no pointer of a dead
        kernel. Then the kernel is looked at once more, for what changed since the last
        refresh, and the file is replaced. If the memory is gone, the copy of the last
        refresh is written.

        :param cause: Why, in words for the core image.
        :raises KmemdumpError: If *path* cannot be written.
        """
        marked_at = self.capture.time
        write_core = partial(self._write, path, marked_at, cause)
        signs = self.signs()
        if signs is None or not signs.same:
            return write_core(self._of_copy(), _GONE)
        remains = Remains(self._target, self.info, self._registers())
        marked = self._of_marks(remains)
        first = write_core(marked)
        capture, problem = self._look_again(remains)
        if capture is None:
            capture = replace(marked, marking=_noted(marked.marking, problem))
        else:
            self.registry.update([*self.registry, *capture.regions])
        try:
            last = write_core(capture, problem)
        except (KmemdumpError, OSError) as error:
            return replace(first, problem=f"it could not be replaced: {error}")
        words = "" if problem else _last_words(capture)
        return replace(last, named=first.named, words=words)

    def _write(
        self,
        path: Path,
        marked_at: datetime,
        cause: str,
        capture: Capture,
        problem: str | None = None,
    ) -> Saved:
        missing = capture.save(
            path,
            regions=list(self.registry),
            packed=self._packed,
            marked_at=marked_at,
            cause=cause,
        )
        now = time.monotonic()
        size, areas = path.stat().st_size, capture.marking.areas
        return Saved(path, size, areas, missing, problem, named=now, finished=now)

    def _of_copy(self) -> Capture:
        return replace(
            self.capture,
            marking=_noted(self.capture.marking, _GONE),
            time=datetime.fromtimestamp(self._copy.time, UTC),
            memory=DumpMemory(self._copy),
        )

    def _of_marks(self, remains: Remains) -> Capture:
        # The registers of the last refresh fit to nothing that is there now.
        kernel = replace(self.capture.kernel, registers=remains.registers())
        now = datetime.now(UTC)
        return replace(self.capture, kernel=kernel, time=now, memory=remains.memory)

    def _look_again(self, remains: Remains) -> tuple[Capture | None, str | None]:
        budget = replace(self._selection.budget, seconds=_SECOND_LOOK_SECONDS)
        selection = replace(self._selection, budget=budget)
        if self.capture.kernel.own_debug_info.found is not None:
            # Loading a vmlinux again takes more than a second. What only its answers
            # need is marked since the last refresh.
            selection = replace(selection, vmlinux=None)
        try:
            return look(remains, selection, self.capture.kernel), None
        except Exception as error:
            # A dead kernel's memory breaks other people's code in any way it likes.
            problem = f"{type(error).__name__}: {error}".splitlines()[0]
            return None, f"the dead kernel could not be looked at: {problem}"

    def _registers(self) -> list[bytes]:
        try:
            return self._target.registers()
        except KmemdumpError:
            return []  # Reset, gone, or QEMU does not answer.


def _noted(marks: Marking, problem: str | None) -> Marking:
    """Note in the core image why the dead kernel was not looked at."""
    note = QuestionResult("look again after death", problem)
    empty: frozenset[int] = frozenset()
    return Marking(
        (*marks.areas, AreaResult("second look", empty, empty, 0.0, (note,)))
    )


def _last_words(capture: Capture) -> str:
    kernel = capture.kernel
    try:
        records = read_log(kernel.prog.read, kernel.vmcoreinfo).records
        cause = find_panic(records) or find_oops(records)
    except Exception:  # Nothing depends on it, and the log may be damaged.
        return ""
    words = printable(cause.sentence.rstrip(".")) if cause else ""
    return words if len(words) <= _MAX_WORDS else f"{words[:_MAX_WORDS]}…"
