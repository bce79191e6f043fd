# SPDX-License-Identifier: GPL-2.0-or-later
"""Redact a core image: remove data, prove what is left, write it."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from kmemdump.arch.architecture import Arch, arch_from_elf
from kmemdump.areas.contents import KINDS
from kmemdump.coreimage import (
    AreaRecord,
    CoreContents,
    CoreImage,
    Manifest,
    Packed,
    QuestionRecord,
    write_core,
)
from kmemdump.coreimage.layout import UNNAMED
from kmemdump.errors import TargetError, UnsupportedError
from kmemdump.formats.elf import NT_PRSTATUS, PT_LOAD, Note
from kmemdump.formats.notes import NoteType, find_own
from kmemdump.kernel.build_cache import BuildCache
from kmemdump.kernel.direct_map import direct_map
from kmemdump.marking.facts import command_line
from kmemdump.memory.ranges import Alias, Region, intersect
from kmemdump.progress import report_progress
from kmemdump.questions.question import Question
from kmemdump.redaction.known import Known, find_known, is_known_symbol
from kmemdump.redaction.look import Answer, Look, look
from kmemdump.redaction.policy import Action, Policy
from kmemdump.redaction.render import ChangedMemory, Tally, only_structure, render
from kmemdump.redaction.text import Masker
from kmemdump.report import Report, gather
from kmemdump.sealing import Seal
from kmemdump.targets import Target
from kmemdump.targets.file import FileTarget
from kmemdump.targets.vmcore import CoreTarget

__all__ = ["Change", "Redacted", "Removed", "redact"]

_logger = logging.getLogger(__name__)
_MOST_PASSES = 8
_REGISTERS_AT = 112
"""Offset of ``pr_reg`` in ``struct elf_prstatus`` of 64-bit machines."""
_SOURCE = "a core image"
"""What a report is made of: names of files and folders say whose it is."""
_UNASKED = "removed: nobody asked for it"
_UNANSWERED = "was not complete when it was marked"
_OWN_REGION = re.compile(r"[\w-]+@[0-9a-f]{1,16}")


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed of a kind of data."""

    kind: str
    meaning: str
    bytes: int
    places: int
    """Texts that were changed; 0 for what is no text."""


@dataclass(frozen=True, slots=True)
class Change:
    """How the answer to a question changed."""

    area: str
    question: str
    same: bool
    lines: int
    """Lines of the answer now."""
    changed: int
    """Those of them that are others, or new."""
    gone: int
    """Lines that there were before, and no others in their place."""
    problem: str | None = None
    """Why there is no answer any more, or only a part of it."""


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
    changes = [_change(*pair) for pair in zip(before, seen.answers, strict=True)]
    return Redacted(
        target=view,
        manifest=_redacted_manifest(manifest, policy, masker, seen, changes),
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


def _redacted_manifest(
    manifest: Manifest,
    policy: Policy,
    masker: Masker,
    seen: Look,
    changes: Sequence[Change],
) -> Manifest:
    names = [*filter(None, manifest.redacted.split(", ")), policy.name]
    # Of what is left: so no reason names what was removed.
    problems = {(it.area, it.question): it.problem for it in seen.answers}
    lost = {(it.area, it.question) for it in changes if it.problem is not None}

    def mask(text: str) -> str:
        return masker.mask_text("log-text", text)

    def redacted(area: str, question: QuestionRecord) -> QuestionRecord:
        # Questions that can be asked stay, so that they can be asked again.
        asked = question.text not in seen.unasked
        problem = problems.get((area, question.text)) if asked else _UNASKED
        gone = not asked or (area, question.text) in lost
        complete = question.complete and not gone
        return question._replace(
            text=question.text if asked else mask(question.text),
            complete=complete,
            reason="" if complete else problem or _UNANSWERED,
        )

    def of_area(area: AreaRecord) -> AreaRecord:
        questions = [redacted(area.name, it) for it in area.questions]
        reasons = [f"{it.text}: {it.reason}" for it in questions if it.reason]
        complete = area.complete and not reasons
        return area._replace(
            complete=complete,
            reason="" if complete else "; ".join(reasons) or _UNANSWERED,
            questions=questions,
        )

    keeps_names = policy.kinds["device-names"] is Action.KEEP
    return manifest._replace(
        cause=mask(manifest.cause),
        vm=masker.mask_text("vm-names", manifest.vm),
        areas=[of_area(area) for area in manifest.areas],
        questions=[redacted("questions", it) for it in manifest.questions],
        regions=[
            it
            if keeps_names or _OWN_REGION.fullmatch(it.name)
            else it._replace(name=masker.mask_text("device-names", it.name))
            for it in manifest.regions
        ],
        redacted=", ".join(dict.fromkeys(names)),
    )


def _removed(counts: dict[str, int], tally: Tally) -> list[Removed]:
    return [
        Removed(kind, meaning, counts[kind], tally.places.get(kind, 0))
        for kind, meaning in KINDS.items()
        if counts.get(kind)
    ]


def _change(before: Answer, after: Answer) -> Change:
    old, new = before.text.splitlines(), after.text.splitlines()
    changed = gone = 0
    if old != new:
        blocks = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
        for tag, i, j, k, m in blocks:
            if tag != "equal":
                changed += m - k
                gone += max(j - i - (m - k), 0)
    same = old == new and before.problem == after.problem
    problem = after.problem if before.problem is None else None
    return Change(before.area, before.question, same, len(new), changed, gone, problem)
