# SPDX-License-Identifier: GPL-2.0-or-later
"""Redact a core image: remove data, prove what is left, write it."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from kmemdump.arch.architecture import Arch, arch_from_elf
from kmemdump.areas.contents import KINDS
from kmemdump.coreimage import (
    CoreContents,
    CoreImage,
    Manifest,
    Packed,
    overlaps_much,
    write_core,
)
from kmemdump.coreimage.layout import UNNAMED
from kmemdump.errors import FormatError, TargetError, UnsupportedError
from kmemdump.formats.elf import NT_PRSTATUS, PT_LOAD, Note
from kmemdump.formats.notes import NoteType, find_own
from kmemdump.kernel.build_cache import BuildCache
from kmemdump.kernel.direct_map import direct_map
from kmemdump.marking.facts import command_line
from kmemdump.memory.ranges import Alias, Region, intersect
from kmemdump.progress import report_progress
from kmemdump.questions.question import Question
from kmemdump.redaction.changed import ChangedMemory
from kmemdump.redaction.changes import Change, compare
from kmemdump.redaction.known import find_known
from kmemdump.redaction.look import Answer, Look, look
from kmemdump.redaction.manifest import redacted_manifest
from kmemdump.redaction.own import is_known_symbol
from kmemdump.redaction.places import Known
from kmemdump.redaction.policy import Policy
from kmemdump.redaction.render import only_structure, render
from kmemdump.redaction.tally import Tally
from kmemdump.redaction.text import Masker
from kmemdump.report.gather import gather
from kmemdump.report.report import Report
from kmemdump.sealing import Seal
from kmemdump.targets import Target
from kmemdump.targets.file import FileTarget
from kmemdump.targets.vmcore import CoreTarget

__all__ = ["Redacted", "Removed", "redact"]

_logger = logging.getLogger(__name__)
_MOST_PASSES = 8
_REGISTERS_AT = 112
"""Offset of ``pr_reg`` in ``struct elf_prstatus`` of 64-bit machines."""
_SOURCE = "a core image"
"""What a report is made of: names of files and folders say whose it is."""


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed of a kind of data."""

    kind: str
    meaning: str
    bytes: int
    places: int
    """Texts that were changed; 0 for what is no text."""


@dataclass(frozen=True, slots=True)
class Redacted:
    """A core image without the data that a policy removes."""

    target: FileTarget
    """Its contents; shares the file of the target that it was made of."""
    manifest: Manifest
    policy: Policy
    passes: int
    removed: Sequence[Removed]
    registers: int
    """Registers that became zero."""
    changes: Sequence[Change]
    kept: Sequence[Removed]
    """Text that stays: bytes of it."""
    structure: int
    """Bytes of numbers, addresses, code and constants that stay."""
    text_in_slack: int
    """Bytes of text that no question reads; they are zero now."""
    unasked: Sequence[str] = ()
    problems: Sequence[str] = ()
    _core: CoreImage | None = field(default=None, repr=False)
    _look: Look | None = field(default=None, repr=False)

    def report(self) -> Report:
        """Return a report of what is left."""
        assert self._look is not None
        return gather(
            self._look.kernel,
            _SOURCE,
            self.manifest,
            held=self.target.memory.ranges,
        )

    def save(self, path: str | os.PathLike[str], seal: Seal | None = None) -> None:
        """
        Write the core image.

        :param seal: Who can read it; by default, whoever can read the file.

        :raises KmemdumpError: If *path* cannot be written; an existing file stays.
        """
        assert self._core is not None
        assert self._look is not None
        core, kernel = self._core, self._look.kernel
        arch = arch_from_elf(self.target.machine)
        direct = direct_map(kernel.prog, arch, kernel.vmcoreinfo)
        noted = (it.desc for it in core.notes if it.name == "VMCOREINFO")
        write_core(
            path,
            CoreContents(
                machine=self.target.machine,
                memory=self.target.memory,
                regions=_regions(self.manifest),
                manifest=self.manifest,
                prstatus=self.target.registers(),
                vmcoreinfo=next(noted, kernel.vmcoreinfo.raw),
                command_line=command_line(kernel.prog),
                direct=direct,
                aliases=_aliases(core, direct),
                packed=Packed(
                    find_own(core.notes, NoteType.DEBUG_INFO) or b"",
                    find_own(core.notes, NoteType.PACKED) or b"",
                ),
            ),
            seal,
        )


def redact(
    target: Target,
    policy: Policy,
    *,
    questions: Sequence[Question] = (),
    builds: BuildCache | None = None,
) -> Redacted:
    """
    Remove data from a core image, in memory.

    Bytes are removed until all questions find nothing more to remove: what a removed
    number led to is not read any more. So redacting again changes nothing.

    :param target: A core image of ours; to be closed after the result was used.
    :param questions: Further questions whose answers are to stay.
    :raises UnsupportedError: If it is another file, or lacks the kernel's symbols.
    :raises KmemdumpError: If its kernel cannot be looked at.
    """
    core, manifest = _checked(target)
    assert isinstance(target, CoreTarget)
    arch = arch_from_elf(target.machine)
    notes, registers = _without_registers(core.notes, arch)
    memory = ChangedMemory(target.memory)
    view = target.changed(memory, notes)
    held = intersect(
        (region.range for region in _regions(manifest)), target.memory.ranges
    )
    tally = Tally()
    before: list[Answer] = []
    for number in range(_MOST_PASSES):
        report_progress("asking all questions", number, _MOST_PASSES)
        seen = look(target if number == 0 else view, manifest, questions, builds)
        if seen.kernel.problem is not None:
            raise UnsupportedError(
                f"{target.name}: cannot be redacted without symbols and types: "
                f"{seen.kernel.problem}"
            )
        before = before or seen.answers
        known = find_known(seen.kernel, seen.recorder)
        masker = _masker(policy, seen, known, manifest)
        changed, found = render(
            memory, held, seen.recorder, known, masker, arch.is_kernel_address
        )
        tally.add(found)
        _logger.info("pass %d: %s", number + 1, dict(found.removed))
        # The first pass had the registers of the file.
        if not changed and number > 0:
            break
    else:
        raise TargetError(
            f"{target.name}: does not settle: each of {_MOST_PASSES} passes removed "
            "more, so the kernel's memory contradicts itself"
        )
    changes = [compare(*pair) for pair in zip(before, seen.answers, strict=True)]
    return Redacted(
        target=view,
        manifest=redacted_manifest(
            manifest, masker, seen.answers, seen.unasked, changes
        ),
        policy=policy,
        passes=number + 1,
        removed=_removed(tally.removed, tally),
        registers=registers,
        changes=changes,
        kept=_removed(tally.kept, Tally()),
        structure=tally.structure,
        text_in_slack=tally.text_in_slack,
        unasked=seen.unasked,
        problems=known.problems,
        _core=core,
        _look=seen,
    )


def _checked(target: Target) -> tuple[CoreImage, Manifest]:
    core = target.core if isinstance(target, CoreTarget) else None
    manifest = core.manifest if core else None
    if core is None or manifest is None:
        raise UnsupportedError(
            f"{target.name}: is no core image of kmemdump\n"
            "make one of it first: kmemdump capture TARGET -o CORE"
        )
    if overlaps_much(core):
        raise FormatError(
            f"{target.name}: manifest",
            "its regions have the same memory many times, expected one region for it",
        )
    return core, manifest


def _masker(policy: Policy, seen: Look, known: Known, manifest: Manifest) -> Masker:
    prog = seen.kernel.prog
    masker = Masker(policy, lambda name: is_known_symbol(prog, name), known.modules)
    masker.add_value("vm-names", manifest.vm.encode())
    return masker


def _regions(manifest: Manifest) -> list[Region]:
    return [
        Region(it.id, it.name, it.address, it.size, it.virtual)
        for it in manifest.regions
    ]


def _aliases(core: CoreImage, direct: Alias | None) -> list[Alias]:
    """Return the virtual addresses in the file, but for those of the direct map."""
    found = (
        Alias(it.vaddr, it.paddr, it.filesz)
        for it in core.headers
        if it.type == PT_LOAD and it.filesz and it.vaddr != UNNAMED | it.paddr
    )
    if direct is None:
        return list(found)
    shift, end = direct.virtual - direct.physical, direct.virtual + direct.size
    return [
        it
        for it in found
        if it.virtual - it.physical != shift or not direct.virtual <= it.virtual < end
    ]


def _without_registers(notes: Sequence[Note], arch: Arch) -> tuple[list[Note], int]:
    """Return notes whose registers are addresses or small, but where a CPU was."""
    found: list[Note] = []
    gone = 0
    for note in notes:
        if (note.name, note.type, len(note.desc)) == (
            "CORE",
            NT_PRSTATUS,
            arch.prstatus_size,
        ):
            desc = bytearray(only_structure(note.desc, arch.is_kernel_address))
            desc[:_REGISTERS_AT] = note.desc[:_REGISTERS_AT]
            for i, name in enumerate(arch.registers):
                at = _REGISTERS_AT + 8 * i
                if name in arch.place_registers:
                    desc[at : at + 8] = note.desc[at : at + 8]
                gone += desc[at : at + 8] != note.desc[at : at + 8]
            note = note._replace(desc=bytes(desc))
        found.append(note)
    return found, gone


def _removed(counts: dict[str, int], tally: Tally) -> list[Removed]:
    return [
        Removed(kind, meaning, counts[kind], tally.places.get(kind, 0))
        for kind, meaning in KINDS.items()
        if counts.get(kind)
    ]
