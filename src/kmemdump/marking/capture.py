# SPDX-License-Identifier: GPL-2.0-or-later
"""From a target's memory to a core image: attach, mark, write."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from drgn import FaultError, Program
from drgn.helpers.linux.cpumask import for_each_online_cpu

from kmemdump.arch.aliases import find_kernel_aliases
from kmemdump.arch.architecture import arch_from_elf
from kmemdump.areas import Area
from kmemdump.areas.simple import SYMBOLS
from kmemdump.backends import FIRST_ID
from kmemdump.coreimage import (
    AreaRecord,
    CoreContents,
    KernelRecord,
    Manifest,
    Packed,
    QuestionRecord,
    pack_memory,
    write_core,
)
from kmemdump.errors import UnsupportedError
from kmemdump.formats.debug_info import pack_debug_info
from kmemdump.kernel.attach import Kernel, OwnDebugInfo, attach
from kmemdump.kernel.debug_info import note_of_debug_info
from kmemdump.kernel.direct_map import direct_map
from kmemdump.marking.mark import AreaResult, Marking, mark
from kmemdump.marking.selection import Selection, select
from kmemdump.memory.physical import JoinedMemory, Memory
from kmemdump.memory.ranges import Range, Region, parts_in
from kmemdump.memory.recorder import Budget, block_ranges
from kmemdump.questions.question import Question
from kmemdump.targets import Target
from kmemdump.version import VERSION

__all__ = ["Capture", "capture", "look"]

_logger = logging.getLogger(__name__)
_PR_PID = 32
"""Offset of the member in ``struct elf_prstatus`` of every 64-bit architecture."""
_BACKEND = "vm"
"""Here, the host of a VM or the reader of a file copies the regions."""


@dataclass(frozen=True, slots=True)
class Capture:
    """A kernel that was looked at, and the memory that its areas need."""

    kernel: Kernel
    marking: Marking
    time: datetime
    memory: Memory
    """The memory that was read, with its contents then; the target has the rest."""
    machine: int
    """Architecture: an ELF ``e_machine``."""
    packing: Future[Packed] | None = None
    """What :meth:`pack` returns, if it is being made."""

    @property
    def complete(self) -> bool:
        """Whether each area is complete."""
        return self.marking.complete

    @property
    def regions(self) -> list[Region]:
        """The regions that are marked; a registry gives them other ids."""
        names: dict[Range, str] = {}
        available = self.memory.ranges
        for name, marked in self.marking.named_ranges():
            # A part of a block may not be memory.
            for item in parts_in(marked, available):
                names.setdefault(item, name)
        return [
            Region(id, name, item.start, item.size)
            for id, (item, name) in enumerate(names.items(), FIRST_ID)
        ]

    def pack(self) -> Packed:
        """
        Return symbols, types and unwind tables, which never change, compressed.

        :return: For :meth:`save`; empty if no area is packed.
        """
        if self.packing is not None:
            return self.packing.result()
        if not any(area.packed for area in self.marking.areas):
            return Packed()
        return _start_packing(self.kernel, self.memory).result()

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        regions: Sequence[Region] | None = None,
        packed: Packed | None = None,
        marked_at: datetime | None = None,
        cause: str = "",
    ) -> list[Range]:
        """
        Write the core image. The target must still be open.

        :param regions: Regions registered beforehand; by default :attr:`regions`.
        :param packed: An earlier result of :meth:`pack` for this kernel.
        :param marked_at: When the regions were last marked before.
        :param cause: Why the kernel died, if that was seen.
        :return: Physical memory that is missing.
        :raises KmemdumpError: If *path* cannot be written; an existing file stays.
        """
        _logger.info("writing %s", os.fspath(path))
        kernel = self.kernel
        arch = arch_from_elf(self.machine)
        if regions is None:
            regions = self.regions
        direct = direct_map(kernel.prog, arch, kernel.vmcoreinfo)
        aliases = find_kernel_aliases(
            arch,
            kernel.vmcoreinfo,
            self.memory.read,
            [region.range for region in regions],
            direct,
        )
        contents = CoreContents(
            machine=self.machine,
            memory=self.memory,
            regions=regions,
            manifest=_manifest(self, marked_at, cause),
            prstatus=_online_first(kernel),
            vmcoreinfo=kernel.vmcoreinfo.raw,
            command_line=_command_line(kernel.prog),
            direct=direct,
            aliases=aliases,
            packed=self.pack() if packed is None else packed,
        )
        return write_core(path, contents)


def capture(
    target: Target,
    *,
    areas: Iterable[str | Area] = (),
    questions: Iterable[str | Question] = (),
    symbols: Iterable[str] = (),
    regions: Iterable[tuple[str, int, int]] = (),
    vmlinux: str | os.PathLike[str] | None = None,
    budget: Budget | None = None,
    known: Capture | None = None,
) -> Capture:
    """
    Look at the kernel of *target*, and mark the memory that answers need.

    :param areas: Names or :class:`~kmemdump.Area` objects; if empty, the areas that
        are marked by default. ``-NAME`` leaves one out, ``FILE.py`` adds those in it.
        Without area ``symbols``, questions to the core image need a vmlinux.
    :param questions: Further questions to answer: crash commands, ``FILE.py``, or
        :class:`~kmemdump.Question` objects.
    :param symbols: Names of variables to mark whole.
    :param regions: Names, kernel virtual addresses and sizes in bytes.
    :param vmlinux: The kernel's debug file, to be used instead of kallsyms and BTF.
    :param budget: Limit on the cost of each question.
    :param known: An earlier capture of the same kernel, whose symbols and types are not
        read again.
    :raises UsageError: If there is no such area or question.
    :raises KmemdumpError: If there is no kernel that can be looked at.
    """
    selection = select(
        areas=areas,
        questions=questions,
        symbols=symbols,
        regions=regions,
        vmlinux=vmlinux,
        budget=budget,
    )
    return look(target, selection, known.kernel if known else None, packing=True)


def look(
    target: Target,
    selection: Selection,
    known: Kernel | OwnDebugInfo | None = None,
    *,
    packing: bool = False,
) -> Capture:
    """
    Look at the kernel of *target*, and mark the selection.

    :param known: The same kernel, looked at before, or its own debug info.
    :param packing: Whether to pack meanwhile, if an area is packed.
    :raises KmemdumpError: If there is no kernel that can be looked at.
    """
    now = datetime.now(UTC)
    kernel = attach(
        target,
        vmlinux=selection.vmlinux,
        known=known,
        self_contained=SYMBOLS in selection.areas,
    )
    packed = None
    if packing and SYMBOLS in selection.areas:
        memory = JoinedMemory(kernel.recorder.recording(), target.memory)
        packed = _start_packing(kernel, memory)
    marking = mark(
        kernel,
        _areas_for(kernel, selection, warn=known is None),
        questions=selection.questions,
        symbols=selection.symbols,
        regions=selection.regions,
        budget=selection.budget,
    )
    if not any(area.blocks for area in marking.areas):
        raise UnsupportedError(
            kernel.problem or f"{target.name}: nothing of the kernel can be read"
        )
    memory = JoinedMemory(kernel.recorder.recording(), target.memory)
    return Capture(kernel, marking, now, memory, target.machine, packed)


def _start_packing(kernel: Kernel, memory: Memory) -> Future[Packed]:
    """Pack in a thread: compressing lets others run, and takes half a second."""
    found = kernel.own_debug_info.found
    tables = block_ranges(kernel.own_debug_info.tables)
    data = b"".join(memory.read(item.start, item.size) for item in tables)

    def pack() -> Packed:
        if found is None:
            return Packed()
        return Packed(
            pack_debug_info(note_of_debug_info(found)),
            pack_memory(tables, data) if tables else b"",
        )

    executor = ThreadPoolExecutor(1)
    try:
        return executor.submit(pack)
    finally:
        executor.shutdown(wait=False)


def _areas_for(kernel: Kernel, selection: Selection, *, warn: bool) -> list[Area]:
    """Leave out area ``symbols`` if it is not named and memory has no symbols."""
    areas = list(selection.areas)
    if (
        SYMBOLS in areas
        and not selection.named
        and kernel.has_vmlinux
        and kernel.own_debug_info.problem is not None
    ):
        areas.remove(SYMBOLS)
        if warn:
            _logger.warning(
                "area symbols is left out, since the kernel's memory has none: opening "
                "the core image takes the vmlinux, too"
            )
    return areas


def _online_first(kernel: Kernel) -> list[bytes]:
    # Without QEMU's own notes, crash assigns the NT_PRSTATUS to the online CPUs in
    # order (map_cpus_to_prstatus(), netdump.c). A kernel that panics takes the other
    # CPUs offline. drgn is not affected: it uses the CPU number (plus 1), which QEMU
    # puts in the field for a process id.
    numbers = [
        int.from_bytes(status[_PR_PID : _PR_PID + 4], "little") - 1
        for status in kernel.registers
    ]
    if sorted(numbers) != list(range(len(numbers))):
        return list(kernel.registers)  # From kdump, which orders them itself.
    try:
        online = set(islice(for_each_online_cpu(kernel.prog), len(numbers)))
    except Exception:  # drgn's helpers may raise any if the kernel is damaged.
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


def _manifest(capture: Capture, marked_at: datetime | None, cause: str) -> Manifest:
    info = capture.kernel.vmcoreinfo
    return Manifest(
        tool=f"kmemdump {VERSION}",
        time=capture.time,
        kernel=KernelRecord(info.osrelease, info.build_id, capture.machine),
        backend=_BACKEND,
        marked_at=marked_at,
        cause=cause,
        areas=[_area_record(area) for area in capture.marking.areas],
    )


def _area_record(area: AreaResult) -> AreaRecord:
    return AreaRecord(
        name=area.name,
        complete=area.reason is None,
        reason=area.reason or "",
        bytes=sum(item.size for item in area.ranges),
        questions=[
            QuestionRecord(it.text, it.reason is None, it.reason or "")
            for it in area.questions
        ],
    )
