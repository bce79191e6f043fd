# SPDX-License-Identifier: GPL-2.0-or-later
"""From a target's memory to a core image: attach, mark, register, write."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from drgn import FaultError, Program
from drgn.helpers.linux.cpumask import for_each_online_cpu

from kmemdump.arch.architecture import find_names, get_arch
from kmemdump.areas import Area
from kmemdump.areas.symbols import SYMBOLS
from kmemdump.backends.vm import VmBackend
from kmemdump.coreimage import (
    AreaRecord,
    CoreContents,
    KernelRecord,
    Manifest,
    QuestionRecord,
    pack_memory,
    write_core,
)
from kmemdump.errors import UnsupportedError
from kmemdump.kernel.attach import Kernel, OwnDebugInfo, attach
from kmemdump.kernel.direct_map import direct_map
from kmemdump.marking.mark import AreaResult, Marking, mark
from kmemdump.marking.registry import Registry
from kmemdump.memory.physical import JoinedMemory, Memory
from kmemdump.memory.ranges import Range, Region
from kmemdump.memory.recorder import Budget, block_ranges
from kmemdump.questions.question import Question
from kmemdump.targets import Target
from kmemdump.version import VERSION

__all__ = [
    "Capture",
    "Selection",
    "look",
    "pack",
    "register",
    "wanted_regions",
    "write",
]

_logger = logging.getLogger(__name__)
_PR_PID = 32
"""Offset of the member in ``struct elf_prstatus`` of every 64-bit architecture."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What a person wants to be marked."""

    areas: Sequence[Area]
    questions: Sequence[Question] = ()
    symbols: Sequence[str] = ()
    ranges: Sequence[tuple[str, int, int]] = ()
    """Names, kernel virtual addresses and sizes in bytes."""
    vmlinux: Path | None = None
    budget: Budget = field(default_factory=Budget)
    named: bool = False
    """
    Whether a person named the areas. Else, with a vmlinux, area ``symbols`` is left out
    of what is marked of a kernel that has none in its memory.
    """


@dataclass(frozen=True, slots=True)
class Capture:
    """A kernel that was looked at, and what its areas need."""

    kernel: Kernel
    marking: Marking
    time: datetime
    memory: Memory
    """What was read as it was read, and the target for the rest."""


def look(
    target: Target, selection: Selection, known: Kernel | OwnDebugInfo | None = None
) -> Capture:
    """
    Look at the kernel of *target* and mark what *selection* name.

    :param known: The same kernel, looked at before, or its own debug info.
    :raises KmemdumpError: If there is no kernel that can be looked at.
    """
    now = datetime.now(UTC)
    kernel = attach(
        target,
        vmlinux=selection.vmlinux,
        known=known,
        self_contained=SYMBOLS in selection.areas,
    )
    areas = list(selection.areas)
    if (
        SYMBOLS in areas
        and not selection.named
        and kernel.has_vmlinux
        and kernel.own_debug_info.problem is not None
    ):
        areas.remove(SYMBOLS)
        if known is None:  # Once is enough.
            _logger.warning(
                "area symbols is left out, since the kernel's memory has none: opening "
                "the core image takes the vmlinux, too"
            )
    marks = mark(
        kernel,
        areas,
        questions=selection.questions,
        symbols=selection.symbols,
        ranges=selection.ranges,
        budget=selection.budget,
    )
    if not any(area.blocks for area in marks.areas):
        raise UnsupportedError(
            kernel.problem or f"{target.name}: nothing of the kernel can be read"
        )
    memory = JoinedMemory(kernel.recorder.recording(), target.memory)
    return Capture(kernel, marks, now, memory)


def register(registry: Registry, marks: Marking) -> None:
    """Bring *registry* up to date with *marks*, changing the least."""
    registry.update(wanted_regions(marks))


def wanted_regions(marks: Marking) -> list[Region]:
    """Return the regions that *marks* want registered; a registry gives them ids."""
    return [
        Region(0, name, item.start, item.size) for name, item in marks.named_ranges()
    ]


def pack(capture: Capture) -> bytes:
    """Compress what never changes; see :mod:`kmemdump.coreimage.packed`."""
    blocks = {
        block for area in capture.marking.areas if area.packed for block in area.own
    }
    return pack_memory(capture.memory, block_ranges(blocks)) if blocks else b""


def write(
    path: str | os.PathLike[str],
    target: Target,
    capture: Capture,
    *,
    registry: Registry | None = None,
    packed: bytes | None = None,
    marked_at: datetime | None = None,
    cause: str = "",
) -> list[Range]:
    """
    Write the core image of *capture*.

    :param registry: What was registered beforehand; by default, what is marked now.
    :param packed: What :func:`pack` returned for this kernel earlier.
    :param marked_at: When the regions were marked for the last time before.
    :param cause: Why it is written, if somebody watched the kernel die.
    :return: Physical memory that is missing.
    """
    if registry is None:
        registry = Registry(target.memory.ranges)
        registry.attach(VmBackend(target.memory))
        register(registry, capture.marking)
    _logger.info("writing %s", os.fspath(path))
    kernel = capture.kernel
    arch = get_arch(target.machine)
    regions = list(registry)
    direct = direct_map(kernel.prog, arch, kernel.vmcoreinfo)
    aliases = find_names(
        arch,
        kernel.vmcoreinfo,
        capture.memory.read,
        [region.range for region in regions],
        direct,
    )
    contents = CoreContents(
        machine=target.machine,
        memory=capture.memory,
        regions=regions,
        manifest=_manifest(capture, target, registry, marked_at, cause),
        prstatus=_online_first(kernel),
        vmcoreinfo=kernel.vmcoreinfo.raw,
        command_line=_command_line(kernel.prog),
        direct=direct,
        aliases=aliases,
        packed=pack(capture) if packed is None else packed,
    )
    return write_core(path, contents)


def _online_first(kernel: Kernel) -> list[bytes]:
    # Without notes that are QEMU's own, crash takes the NT_PRSTATUS for those of the
    # CPUs that are online, in their order (map_cpus_to_prstatus(), netdump.c). A
    # kernel that panics takes the other CPUs offline. drgn does not mind: it goes by
    # the number, which QEMU puts where a process would have its id (plus 1).
    numbers = [
        int.from_bytes(status[_PR_PID : _PR_PID + 4], "little") - 1
        for status in kernel.registers
    ]
    if sorted(numbers) != list(range(len(numbers))):
        return list(kernel.registers)  # kdump's, which has its own way.
    try:
        online = set(islice(for_each_online_cpu(kernel.prog), len(numbers)))
    except Exception:  # drgn's helpers on a damaged kernel.
        online = set()
    order = sorted(
        zip(numbers, kernel.registers, strict=True),
        key=lambda item: (item[0] not in online, item[0]),
    )
    return [status for _, status in order]


def _command_line(prog: Program) -> str:
    try:
        line: bytes = prog["saved_command_line"].string_()
    except (LookupError, FaultError):
        return ""
    return line.decode("utf-8", "replace")


def _manifest(
    capture: Capture,
    target: Target,
    registry: Registry,
    marked_at: datetime | None,
    cause: str,
) -> Manifest:
    info = capture.kernel.vmcoreinfo
    return Manifest(
        tool=f"kmemdump {VERSION}",
        time=capture.time,
        kernel=KernelRecord(info.osrelease, info.build_id, target.machine),
        backend=registry.backend.name if registry.backend else "",
        marked_at=marked_at,
        cause=cause,
        areas=list(_area_records(capture.marking.areas)),
    )


def _area_records(areas: Iterable[AreaResult]) -> Iterable[AreaRecord]:
    for area in areas:
        yield AreaRecord(
            name=area.name,
            complete=area.reason is None,
            reason=area.reason or "",
            bytes=sum(item.size for item in area.ranges),
            questions=[
                QuestionRecord(
                    question.text, question.reason is None, question.reason or ""
                )
                for question in area.questions
            ],
        )
