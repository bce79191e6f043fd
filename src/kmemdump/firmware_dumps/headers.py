# SPDX-License-Identifier: GPL-2.0-or-later
"""Find the fragments that describe a dump: ELF headers and VMCOREINFO."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kmemdump.errors import FormatError
from kmemdump.firmware_dumps.fragments import Fragment, read_start
from kmemdump.formats.elf import NT_PRSTATUS, Note
from kmemdump.formats.elfheader import HeaderEntry, parse_header_region
from kmemdump.vmcoreinfo import VMCOREINFO_LIMIT, VmcoreInfo

__all__ = ["Headers", "find_headers", "is_registers"]

_HEADER_NAME = "KELF"
_INFO_NAME = "Kvmcorein"
_INFO_START = b"OSRELEASE="
_DEATH = re.compile(rb"CRASHTIME=[0-9]+\n")
_MAX_HEADER = 4 << 20
_MAX_HEADERS = 16


@dataclass(slots=True)
class Headers:
    """The contents of all describing fragments together."""

    machine: int | None = None
    entries: list[HeaderEntry] = field(default_factory=list)
    """Those with a physical address, each once."""
    notes: list[Note] = field(default_factory=list)
    vmcoreinfo: VmcoreInfo | None = None
    marked: int | None = None
    """When the regions were marked, in seconds since 1970."""
    fragments: list[Fragment] = field(default_factory=list)
    """The describing fragments themselves; they need no address."""
    tried: int = 0
    """How many were parsed as ELF headers."""


def find_headers(
    fragments: Sequence[Fragment], problems: list[str], *, described: bool = True
) -> Headers:
    """
    Read the fragments that describe the dump.

    They are found by their contents. One that cannot be parsed is a problem only if its
    name says that it should be an ELF header.

    :param problems: Problems are added here.
    :param described: Whether there should be an ELF header.
    """
    headers = Headers()
    texts: list[VmcoreInfo] = []
    # The likely ones first.
    likely = (_HEADER_NAME, _INFO_NAME)
    for fragment in sorted(fragments, key=lambda it: not it.name.startswith(likely)):
        start = read_start(fragment.contents, 0x10)
        if start.startswith(b"\x7fELF") or fragment.name.startswith(_HEADER_NAME):
            _add_header(headers, fragment, texts, problems)
        elif start.startswith(_INFO_START):
            _add_text(headers, fragment, texts, problems)
    named = any(fragment.name.startswith(_HEADER_NAME) for fragment in fragments)
    if described and not named:
        problems.append("there is no ELF header region (KELF)")
    if texts:
        headers.vmcoreinfo = texts[0]
        for other in texts[1:]:
            if _said_in_life(other) != _said_in_life(texts[0]):
                problems.append(
                    f"{texts[0].source} and {other.source} hold different VMCOREINFO; "
                    "the first one is used"
                )
    return headers


def _said_in_life(info: VmcoreInfo) -> bytes:
    """Leave out what crash_save_vmcoreinfo() adds to a copy when the kernel dies."""
    return _DEATH.sub(b"", info.raw)


def is_registers(note: Note) -> bool:
    """Return whether a note has a CPU's registers; the series writes only zeros."""
    return note.type == NT_PRSTATUS and note.name == "CORE" and any(note.desc)


def _add_header(
    headers: Headers, fragment: Fragment, texts: list[VmcoreInfo], problems: list[str]
) -> None:
    if headers.tried == _MAX_HEADERS:
        return
    headers.tried += 1
    try:
        found = parse_header_region(
            read_start(fragment.contents, _MAX_HEADER), fragment.name
        )
    except FormatError as error:
        if fragment.name.startswith(_HEADER_NAME):
            problems.append(str(error))
        return
    if headers.machine not in (None, found.machine):
        problems.append(f"{fragment.name} is of another machine ({found.machine})")
        return
    headers.machine = found.machine
    headers.fragments.append(fragment)
    if headers.marked is None:
        headers.marked = found.marked
    _add_new(headers.entries, (it for it in found.entries if it.paddr is not None))
    # Registers that firmware saved at death come after those of the ELF header, which
    # are older, or only zeros.
    registers = [note for note in found.notes if is_registers(note)]
    if registers:
        headers.notes[:] = [it for it in headers.notes if not is_registers(it)]
    headers.notes.extend(registers if headers.notes else found.notes)
    for note in found.notes:
        if note.name == "VMCOREINFO" and note.desc.startswith(_INFO_START):
            try:
                texts.append(VmcoreInfo.parse(note.desc, fragment.name))
            except FormatError as error:
                problems.append(str(error))


def _add_new(entries: list[HeaderEntry], new: Iterable[HeaderEntry]) -> None:
    known = {(it.vaddr, it.paddr, it.size) for it in entries}
    entries.extend(it for it in new if (it.vaddr, it.paddr, it.size) not in known)


def _add_text(
    headers: Headers, fragment: Fragment, texts: list[VmcoreInfo], problems: list[str]
) -> None:
    try:
        texts.append(
            VmcoreInfo.parse(
                read_start(fragment.contents, VMCOREINFO_LIMIT), fragment.name
            )
        )
    except FormatError as error:
        # A region may start at the kernel's text and end before or after its end.
        if fragment.name.startswith(_INFO_NAME):
            problems.append(str(error))
        return
    headers.fragments.append(fragment)
