# SPDX-License-Identifier: GPL-2.0-or-later
"""
Source lines of modules' functions on the stacks of a kernel.

Debug files of modules are opened beside the kernel's program and not in it. With them,
drgn 0.3 unwinds by their .debug_frame on aarch64, where it comes upon one function for
ever, while it finds the callers without them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from drgn import Program, RelocatableModule

from kmemdump.diagnosis.records import Frame
from kmemdump.report.records import BlockedTask, StackGroup
from kmemdump.report.report import Report
from kmemdump.report.source_lines import line_of, plain_program

__all__ = ["ModulePlace", "find_module_places", "with_module_lines"]


@dataclass(frozen=True, slots=True)
class ModulePlace:
    """Where a module is in the memory of a kernel."""

    build_id: bytes
    sections: Mapping[str, int]
    """Addresses of its sections, by name."""
    ranges: Sequence[tuple[int, int]]
    """Its memory: first address, and the one behind the last."""


def find_module_places(prog: Program) -> dict[str, ModulePlace]:
    """Return where the modules of a kernel are, by name, as far as drgn knows."""
    found: dict[str, ModulePlace] = {}
    for module in prog.modules():
        if not isinstance(module, RelocatableModule):
            continue
        ranges = module.address_ranges
        if module.build_id is not None and ranges:
            sections = dict(module.section_addresses)
            place = ModulePlace(module.build_id, sections, list(ranges))
            found.setdefault(module.name, place)
    return found


def with_module_lines(
    report: Report,
    places: Mapping[str, ModulePlace],
    files: Mapping[str, Sequence[Path]],
) -> Report:
    """
    Return a report with file and line of modules' functions, and with inlined ones.

    :param places: Of the kernel that the report is of.
    :param files: Debug files of modules, by name; those of another build give no lines.
    """
    prog = plain_program()
    loaded = {
        name for name in places.keys() & files if _load(prog, name, places[name], files)
    }
    if not loaded:
        return report

    def expand(frames: Iterable[Frame]) -> tuple[Frame, ...]:
        return tuple(
            new
            for frame in frames
            for new in (_expand(prog, frame) if frame.module in loaded else [frame])
        )

    cause = report.cause
    cpus = []
    for cpu in report.cpus:
        if cpu.number == cause.cpu and cause.frame is not None:
            # The same frame, behind the functions that are inlined in it.
            marked = len(expand(cpu.frames[: cause.frame + 1])) - 1
            cause = replace(cause, frame=marked)
        cpus.append(replace(cpu, frames=expand(cpu.frames)))
    return replace(
        report,
        cause=cause,
        cpus=tuple(cpus),
        blocked=tuple(
            BlockedTask(it.task, expand(it.frames), it.problem) for it in report.blocked
        ),
        stacks=tuple(StackGroup(it.tasks, expand(it.frames)) for it in report.stacks),
    )


def _load(
    prog: Program,
    name: str,
    place: ModulePlace,
    files: Mapping[str, Sequence[Path]],
) -> bool:
    try:
        module = prog.relocatable_module(name, place.ranges[0][0], create=True)
        module.build_id = place.build_id
        module.section_addresses.update(place.sections)
        module.address_ranges = place.ranges
        for path in files[name]:
            module.try_file(path)
    except Exception:  # drgn raises many kinds. Without lines, the report says so.
        return False
    return module.debug_file_path is not None


def _expand(prog: Program, frame: Frame) -> list[Frame]:
    """Return a frame with its line, after those of the functions inlined in it."""
    if frame.source is not None or frame.inline:
        return [frame]
    # A return address may be the first one of the next line.
    address = frame.pc - int(frame.pc > 0 and not frame.interrupted)
    try:
        *inlined, own = prog.source_location(address)
    except LookupError:
        return [frame]
    within = replace(frame, offset=None, inline=True, interrupted=False)
    return [
        *(replace(within, symbol=it.name(), source=line_of(it)) for it in inlined),
        replace(frame, source=line_of(own)),
    ]
