# SPDX-License-Identifier: GPL-2.0-or-later
"""From a target's memory to a core image: attach, mark, write."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kmemdump.arch.aliases import find_kernel_aliases
from kmemdump.arch.architecture import arch_from_elf
from kmemdump.areas import Area
from kmemdump.areas.simple import SYMBOLS
from kmemdump.backends import FIRST_ID
from kmemdump.coreimage import (
    CoreContents,
    Death,
    KernelRecord,
    Manifest,
    Packed,
    pack_memory,
    write_core,
)
from kmemdump.errors import TargetError, UnsupportedError
from kmemdump.formats.debug_info import pack_debug_info
from kmemdump.formats.packing import compress
from kmemdump.kernel.attach import (
    Kernel,
    OwnDebugInfo,
    attach,
    read_own_debug_info,
)
from kmemdump.kernel.build_cache import BuildCache
from kmemdump.kernel.debug_info import note_of_debug_info
from kmemdump.kernel.direct_map import direct_map
from kmemdump.kernel.vmlinux_search import find_vmlinux
from kmemdump.marking.asked import History
from kmemdump.marking.facts import command_line, online_first, record_area
from kmemdump.marking.mark import NO_CHANGES, Marking, mark
from kmemdump.marking.selection import Selection, select
from kmemdump.marking.self_contained import mark_by_vmlinux
from kmemdump.memory.physical import JoinedMemory, Memory
from kmemdump.memory.ranges import Range, Region, parts_in
from kmemdump.memory.reading import Budget, block_ranges
from kmemdump.memory.recorder import Recorder
from kmemdump.memory.spans import Changes
from kmemdump.questions.question import Question
from kmemdump.sealing import Seal, make_seal
from kmemdump.targets import Target
from kmemdump.version import VERSION
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["Capture", "capture", "look"]

_logger = logging.getLogger(__name__)
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
    found_vmlinux: Path | None = None
    """
    The debug file that was found by the kernel's build id, and used, because its own
    symbols or types are incomplete.
    """
    history: History | None = None
    """What the next look needs; ``None`` if it has to put all questions."""

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
        death: Death | None = None,
        seal: Seal | Iterable[str] | None = None,
    ) -> list[Range]:
        """
        Write the core image. The target must still be open.

        :param regions: Regions registered beforehand; by default :attr:`regions`.
        :param packed: An earlier result of :meth:`pack` for this kernel.
        :param marked_at: When the regions were last marked before.
        :param death: Why the kernel died, if that was seen.
        :param seal: Public keys of age or ssh, or files of them; only who has the
            private key of one can read the core image. By default it is not sealed.
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
            manifest=self._manifest(marked_at, death),
            prstatus=online_first(kernel),
            vmcoreinfo=kernel.vmcoreinfo.raw,
            command_line=command_line(kernel.prog),
            direct=direct,
            aliases=aliases,
            packed=self.pack() if packed is None else packed,
        )
        if seal is not None and not isinstance(seal, Seal):
            seal = make_seal(seal)
        return write_core(path, contents, seal)

    def _manifest(self, marked_at: datetime | None, death: Death | None) -> Manifest:
        death = death or Death()
        info = self.kernel.vmcoreinfo
        return Manifest(
            tool=f"kmemdump {VERSION}",
            time=self.time,
            kernel=KernelRecord(info.osrelease, info.build_id, self.machine),
            backend=_BACKEND,
            marked_at=marked_at,
            cause=death.cause,
            death=death.kind,
            signature=death.signature,
            death_id=death.id,
            vm=death.vm,
            areas=[record_area(area) for area in self.marking.areas],
        )


def capture(
    target: Target,
    *,
    areas: Iterable[str | Area] = (),
    questions: Iterable[str | Question] = (),
    symbols: Iterable[str] = (),
    regions: Iterable[tuple[str, int, int]] = (),
    vmlinux: str | os.PathLike[str] | None = None,
    find_vmlinux: bool = True,
    budget: Budget | None = None,
    known: Capture | None = None,
) -> Capture:
    """
    Look at the kernel of *target*, and mark the memory that answers need.

    :param areas: Names or :class:`~kmemdump.Area` objects; if empty, the areas that
        are marked by default. ``+NAME`` adds one to them, ``-NAME``
        leaves one out, ``FILE.py`` adds those in it.
        Without area ``symbols``, questions to the core image need a vmlinux.
    :param questions: Further questions to answer: crash commands, ``FILE.py``, or
        :class:`~kmemdump.Question` objects.
    :param symbols: Names of variables to mark whole.
    :param regions: Names, kernel virtual addresses and sizes in bytes.
    :param vmlinux: The kernel's debug file, to be used instead of kallsyms and BTF.
    :param find_vmlinux: Whether to look for the debug file in the usual places, by the
        kernel's build id, if symbols or types in its memory are incomplete.
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
        search={} if find_vmlinux else None,
    )
    return look(target, selection, known.kernel if known else None, packing=True)


def look(
    target: Target,
    selection: Selection,
    known: Kernel | OwnDebugInfo | None = None,
    *,
    packing: bool = False,
    builds: BuildCache | None = None,
    again: bool = False,
) -> Capture:
    """
    Look at the kernel of *target*, and mark the selection.

    :param known: The same kernel, looked at before, or its own debug info.
    :param packing: Whether to pack meanwhile, if an area is packed.
    :param builds: What kernels of one build share.
    :param again: Whether to remember what was read, for
        :func:`kmemdump.marking.again.look_again`.
    :raises KmemdumpError: If there is no kernel that can be looked at.
    """
    now = datetime.now(UTC)
    self_contained = SYMBOLS in selection.areas
    own = known.own_debug_info if isinstance(known, Kernel) else known
    if own is None and packing and self_contained:
        own = read_own_debug_info(target, Recorder(target.memory), builds)
    vmlinux, found_vmlinux = selection.vmlinux, None
    if own is not None and own.from_vmlinux:
        vmlinux = None
    incomplete = packing and own is not None and not own.complete
    if incomplete and vmlinux is None:
        vmlinux = found_vmlinux = _find_vmlinux(target.vmcoreinfo(), selection)
    packed = None
    if vmlinux is not None and incomplete and own is not None:
        kernel, marking, memory = mark_by_vmlinux(
            target, vmlinux, own, selection, selection.areas
        )
    else:
        kernel = attach(
            target,
            vmlinux=vmlinux,
            known=own,
            self_contained=self_contained,
            lasting=again,
        )
        memory = JoinedMemory(kernel.recorder.recording(), target.memory)
        if packing and self_contained:
            packed = _start_packing(kernel, memory, builds)
        marking = mark_selected(kernel, selection, warn=known is None)
        memory = JoinedMemory(kernel.recorder.recording(), target.memory)
    if not any(area.blocks for area in marking.areas):
        raise UnsupportedError(
            kernel.problem or f"{target.name}: nothing of the kernel can be read"
        )
    history = None
    if again and kernel.base is not None:
        history = History(selection, tuple(target.memory.ranges))
    return Capture(
        kernel, marking, now, memory, target.machine, packed, found_vmlinux, history
    )


def _find_vmlinux(info: VmcoreInfo, selection: Selection) -> Path | None:
    """Return the debug file of a kernel, if there is one and it is looked for."""
    # Without a build id, it may be another build's.
    if selection.search is None or info.build_id is None:
        return None
    try:
        return find_vmlinux(info.osrelease, info.build_id, selection.search)
    except TargetError:
        return None


def _start_packing(
    kernel: Kernel, memory: Memory, builds: BuildCache | None = None
) -> Future[Packed]:
    """Pack in a thread: compressing lets others run, and takes half a second."""
    found = kernel.own_debug_info.found
    tables = block_ranges(kernel.own_debug_info.tables)
    data = b"".join(memory.read(item.start, item.size) for item in tables)

    compressor = compress if builds is None else builds.compress

    def pack() -> Packed:
        if found is None:
            return Packed()
        return Packed(
            pack_debug_info(note_of_debug_info(found), compressor),
            pack_memory(tables, data, compressor) if tables else b"",
        )

    executor = ThreadPoolExecutor(1)
    try:
        return executor.submit(pack)
    finally:
        executor.shutdown(wait=False)


def mark_selected(
    kernel: Kernel,
    selection: Selection,
    *,
    warn: bool = False,
    before: Marking | None = None,
    changes: Changes = NO_CHANGES,
) -> Marking:
    """
    Mark the selection.

    :param warn: Whether to say that area ``symbols`` is left out.
    :param before: The last marks and what changed since, as for
        :func:`~kmemdump.marking.mark.mark`.
    """
    return mark(
        kernel,
        _areas_for(kernel, selection, warn=warn),
        questions=selection.questions,
        symbols=selection.symbols,
        regions=selection.regions,
        budget=selection.budget,
        before=before,
        changes=changes,
    )


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
