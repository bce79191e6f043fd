# SPDX-License-Identifier: GPL-2.0-or-later
"""Register a kernel with what dumps it, and keep the table of regions up to date."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol, Unpack

from kmemdump.arch.architecture import arch_from_elf
from kmemdump.backends import Backend
from kmemdump.backends.elf_header_region import Description
from kmemdump.backends.kdump import KdumpBackend
from kmemdump.errors import TargetError
from kmemdump.formats.followed import pack_followed
from kmemdump.kernel.attach import OwnDebugInfo, read_own_debug_info
from kmemdump.kernel.direct_map import direct_map, image_end
from kmemdump.kernel_search.notes import is_present
from kmemdump.marking.again import look_again
from kmemdump.marking.capture import Capture, look
from kmemdump.marking.firmware_table import FirmwareTable, TableOptions, check_reserved
from kmemdump.marking.followed import find_followed
from kmemdump.marking.free_memory import free_memory
from kmemdump.marking.mark import Marking
from kmemdump.marking.plan import DESCRIPTION, Plan, plan
from kmemdump.marking.registry import Refusal, Registry
from kmemdump.marking.selection import Selection, Wanted, select
from kmemdump.memory.ranges import Range, subtract
from kmemdump.memory.recorder import Recorder
from kmemdump.targets import Closing, Target
from kmemdump.text import format_size

__all__ = [
    "RefreshResult",
    "Registration",
    "Table",
    "mark_firmware",
    "register",
    "unmark_firmware",
]

_MOST_REGIONS = 14_000
"""
Regions of a plan where the backend has room for any number: as many as a list for the
crash kernel describes in 1 MiB.
"""


class Table(Protocol):
    """The regions of one machine, where what dumps them finds them; locked and open."""

    @property
    def name(self) -> str:
        """For file names."""

    @property
    def reserved(self) -> Sequence[Range]:
        """Memory that is written; the kernel must not use it."""

    def open_backend(self) -> Backend:
        """
        Return a backend for the table, which takes over the regions of an earlier run.

        :raises BackendError: If the table is not ready or has no room.
        """

    def withdraw(self) -> None:
        """
        Remove all our regions, those of earlier runs included.

        :raises KmemdumpError: If there is no such table.
        """

    def close(self) -> None:
        """Close and unlock the table; the regions stay registered."""


@dataclass(frozen=True, slots=True)
class RefreshResult:
    """The result of a look at the kernel, and of the update of the backend."""

    plan: Plan
    added: int
    """Number of new regions."""
    removed: int
    """Number of removed regions."""
    refused: tuple[Refusal, ...]
    problem: str | None
    """Why the dump cannot describe itself, if so."""
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether the whole selection is registered."""
        return not self.problems

    @property
    def problems(self) -> list[str]:
        """The missing parts of the selection, one line each."""
        lines = []
        for area in self.plan.areas:
            reason = area.left_out or area.result.reason
            if reason:
                what = "left out" if area.left_out else "incomplete"
                lines.append(f"area {area.result.name} is {what}: {reason}")
        for refusal in self.refused:
            where = f"{refusal.region.name} ({refusal.region.range})"
            lines.append(f"{where} is refused: {refusal.reason}")
        if self.problem:
            lines.append(self.problem)
        return lines

    @property
    def summary(self) -> str:
        """The present registration, in one line."""
        plan = self.plan
        return (
            f"{len(plan.regions)} regions, {format_size(plan.size)}, "
            f"{format_size(plan.extra)} of it between what was asked for; "
            f"{self.added} new, {self.removed} gone, {self.seconds:.1f} s"
        )


class Registration(Closing):
    """
    A kernel whose regions are registered with what dumps them.

    Each look at the kernel plans the regions anew, and brings the table up to date with
    the fewest changes.

    :param target: Where the kernel is; the caller closes it.
    :param table: Closed together with this. The regions of an earlier run stay until
        there are new ones.
    :raises KmemdumpError: If there is no kernel that can be looked at, or the table
        cannot be used; the table is still open then.
    """

    def __init__(self, target: Target, selection: Selection, table: Table) -> None:
        self.target_name = target.name
        """Name of the machine."""
        self.table = table.name
        """Name of the table, for files."""
        self._target = target
        self._selection = selection
        self._table = table
        # Regions must not extend over memory that we write.
        self._within = subtract(target.memory.ranges, table.reserved)
        start = time.monotonic()
        self._own_debug_info: OwnDebugInfo | None = None
        if selection.vmlinux is None:
            # First, so that its memory is freed before the questions are put.
            self._own_debug_info = read_own_debug_info(target, Recorder(target.memory))
            free_memory()
        self._last_look: Capture | None = None
        capture = self._look(self._own_debug_info)
        self._own_debug_info = capture.kernel.own_debug_info
        self._info = capture.kernel.vmcoreinfo
        self.kernel = self._info.osrelease
        """Release of the kernel that is marked."""
        check_reserved(capture.kernel, table.reserved)
        self._backend = table.open_backend()
        self._description = _describe_kernel(target, capture)
        if isinstance(self._backend, KdumpBackend):
            followed = pack_followed(find_followed(capture.kernel.prog))
            self._description = replace(self._description, notes=followed)
        self._registry = Registry(target.memory.ranges, description=self._description)
        self._registry.attach(self._backend)
        self._marked: Marking | None = None
        self.last = self._update(capture, start)
        """The result of the last look."""
        del capture
        free_memory()

    def check(self) -> None:
        """
        Check that the kernel is still the one that was marked.

        :raises TargetError: If it is not.
        """
        if not is_present(self._info, self._target.memory):
            raise TargetError(f"{self.target_name}: the kernel that was marked is gone")

    def refresh(self) -> RefreshResult:
        """
        Look at the kernel again, and register the changes.

        :raises KmemdumpError: If the kernel cannot be looked at; its regions stay.
        """
        start = time.monotonic()
        before = {it.result.name for it in self.last.plan.areas if it.result.reason}
        self.last = self._update(self._look(self._own_debug_info, before), start)
        free_memory()
        return self.last

    def _look(
        self, own_debug_info: OwnDebugInfo | None, incomplete: Collection[str] = ()
    ) -> Capture:
        before, self._last_look = self._last_look, None
        self._last_look = _look(
            self._target, self._selection, own_debug_info, incomplete, before
        )
        return self._last_look

    def _describe(self, when: datetime) -> None:
        marked = int(when.timestamp())
        if marked != self._description.marked:
            self._description = replace(self._description, marked=marked)
            self._registry.set_description(self._description)

    def withdraw(self) -> None:
        """Take all regions off the table."""
        self._registry.detach()
        self._table.withdraw()

    def close(self) -> None:
        """Close the table, so that another process can write to it; regions stay."""
        self._table.close()

    def _update(self, capture: Capture, start: float) -> RefreshResult:
        if self._marked is capture.marking:  # The same object: nothing changed.
            added = removed = 0
            planned, refused = self.last.plan, self.last.refused
        else:
            room = _MOST_REGIONS
            if self._backend.capacity is not None:
                room = max(self._backend.capacity - DESCRIPTION, 0)
            marking = _ignore_registers(capture.marking)
            planned = plan(marking, room, self._within)
            result = self._registry.update(planned.regions)
            added, removed = len(result.added), len(result.removed)
            refused = result.refused
            self._marked = capture.marking
        # Last: until then, some registered regions are from the previous look.
        self._describe(capture.time)
        return RefreshResult(
            planned,
            added,
            removed,
            refused,
            self._registry.description_problem,
            time.monotonic() - start,
        )


def mark_firmware(
    target: Target, table: TableOptions | None = None, **wanted: Unpack[Wanted]
) -> Registration:
    """
    Register the regions of a kernel with its firmware, which dumps them when it dies.

    Regions that another owner registered stay as they are.

    The keywords are those of :func:`kmemdump.capture`.

    :param target: This machine, or a VM that has its RAM in a shared file.
    :param table: Where the table is, and how it is written.
    :return: A registration to refresh, and to close before the target.
    :raises UsageError: If there is no such area or question, or the kernel uses the
        memory that is to be written.
    :raises UnsupportedError: If the target cannot be written, or another process writes
        to the table.
    :raises KmemdumpError: If there is no table, or no kernel that can be looked at.
    """
    opened = FirmwareTable(target, table or TableOptions())
    return register(target, select(**wanted, early=True), opened)


def register(
    target: Target,
    selection: Selection,
    table: Table,
    opened: Callable[[str], None] | None = None,
) -> Registration:
    """
    Register the regions of a kernel in a table.

    :param table: Closed together with what is returned, and if this fails.
    :param opened: Called when all is open, before the kernel is looked at, with the
        name of the table.
    :raises KmemdumpError: If it cannot be done.
    """
    try:
        if opened is not None:
            opened(table.name)
        return Registration(target, selection, table)
    except BaseException:
        table.close()
        raise


def unmark_firmware(target: Target, table: TableOptions | None = None) -> None:
    """
    Remove all regions that we have registered with a machine's firmware.

    :param table: Where the table is.
    :raises KmemdumpError: If there is no table that can be written.
    """
    with FirmwareTable(target, table or TableOptions()) as opened:
        opened.withdraw()


def _look(
    target: Target,
    selection: Selection,
    own_debug_info: OwnDebugInfo | None,
    incomplete: Collection[str] = (),
    before: Capture | None = None,
) -> Capture:
    """
    Look at the kernel, and once more if areas have become incomplete.

    The kernel runs meanwhile, so a list may be torn while it is walked. Its area should
    not stay incomplete until the next refresh.

    :param incomplete: Names of areas that were incomplete at the last refresh.
    :param before: The last look, of no use afterwards.
    """
    if before is not None:
        capture = look_again(before, target, selection)
    else:
        capture = look(target, selection, own_debug_info, again=True)
    found = {
        area.name for area in _ignore_registers(capture.marking).areas if area.reason
    }
    if found <= set(incomplete):
        return capture
    own_debug_info = capture.kernel.own_debug_info
    del capture, before
    free_memory()
    return look(target, selection, own_debug_info, again=True)


def _ignore_registers(marking: Marking) -> Marking:
    """
    Treat questions that lack only registers as answered. A machine that looks at itself
    has no registers; its firmware saves them when it dies.
    """
    areas = (
        replace(
            area,
            questions=tuple(
                replace(it, reason=None) if it.without_registers else it
                for it in area.questions
            ),
        )
        for area in marking.areas
    )
    return Marking(tuple(areas))


def _describe_kernel(target: Target, capture: Capture) -> Description:
    """Return the description that a dump of this kernel contains."""
    kernel = capture.kernel
    arch, info = arch_from_elf(target.machine), kernel.vmcoreinfo
    direct = direct_map(kernel.prog, arch, info)
    image = arch.image(info)
    size = max(image_end(kernel.prog) - image.virtual, 0)
    return Description(
        target.machine,
        info.raw,
        direct_map=direct.virtual - direct.physical if direct else None,
        image=(image.virtual, image.physical, size),
        marked=int(capture.time.timestamp()),
    )
