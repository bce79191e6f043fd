# SPDX-License-Identifier: GPL-2.0-or-later
"""Find the pieces of a dump that tell about the others: ELF headers and VMCOREINFO."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.firmware_dumps.fragments import Piece
from kmemdump.formats.elf import NT_PRSTATUS, Note
from kmemdump.formats.elfheader import HeaderEntry, parse_header_region
from kmemdump.vmcoreinfo import VMCOREINFO_LIMIT, VmcoreInfo

__all__ = ["Headers", "find_headers", "is_registers"]

_HEADER_NAME = "KELF"
_INFO_NAME = "Kvmcorein"
_INFO_START = b"OSRELEASE="
_MAX_HEADER = 4 << 20
_MAX_HEADERS = 16


@dataclass(slots=True)
class Headers:
    """What the telling pieces say, all together."""

    machine: int | None = None
    entries: list[HeaderEntry] = field(default_factory=list)
    """Those with a physical address, each once."""
    unplaced: list[HeaderEntry] = field(default_factory=list)
    """Those that only a section speaks of."""
    notes: list[Note] = field(default_factory=list)
    vmcoreinfo: VmcoreInfo | None = None
    marked: int | None = None
    """When the regions were marked: seconds since the epoch."""
    pieces: list[Piece] = field(default_factory=list)
    """Those that were understood; they need no place of their own."""


def find_headers(
    pieces: Sequence[Piece], problems: list[str], *, described: bool = True
) -> Headers:
    """
    Read the pieces that tell about the others.

    They are found by their contents; only the firmware's own name of the ELF header
    makes one worth a complaint if it is none.

    :param problems: What is wrong is added here.
    :param described: Whether there should be an ELF header.
    """
    headers = Headers()
    texts: list[VmcoreInfo] = []
    for piece in _likely_first(pieces):
        start = _read(piece, 0x10)
        if start.startswith(b"\x7fELF") or piece.name.startswith(_HEADER_NAME):
            _add_header(headers, piece, texts, problems)
        elif start.startswith(_INFO_START):
            _add_text(headers, piece, texts, problems)
    named = any(piece.name.startswith(_HEADER_NAME) for piece in pieces)
    if described and not named:
        problems.append("there is no ELF header region (KELF)")
    if texts:
        headers.vmcoreinfo = texts[0]
        for other in texts[1:]:
            if other.raw != texts[0].raw:
                problems.append(
                    f"{other.source} is another VMCOREINFO than {texts[0].source}, "
                    "which is taken"
                )
    return headers


def is_registers(note: Note) -> bool:
    """Tell whether a note has the registers of a CPU; the series' has only zeros."""
    return note.type == NT_PRSTATUS and note.name == "CORE" and any(note.desc)


def _likely_first(pieces: Sequence[Piece]) -> list[Piece]:
    def rank(piece: Piece) -> int:
        return not piece.name.startswith((_HEADER_NAME, _INFO_NAME))

    return sorted(pieces, key=rank)


def _read(piece: Piece, count: int) -> bytes:
    try:
        return piece.store.read(0, min(count, piece.store.size))
    except NotCapturedError:
        return b""


def _add_header(
    headers: Headers, piece: Piece, texts: list[VmcoreInfo], problems: list[str]
) -> None:
    if len(headers.pieces) >= _MAX_HEADERS:
        return
    try:
        found = parse_header_region(_read(piece, _MAX_HEADER), piece.name)
    except FormatError as error:
        if piece.name.startswith(_HEADER_NAME):
            problems.append(str(error))
        return
    if headers.machine not in (None, found.machine):
        problems.append(f"{piece.name} is of another machine ({found.machine})")
        return
    headers.machine = found.machine
    headers.pieces.append(piece)
    if headers.marked is None:
        headers.marked = found.marked
    _add_new(headers.entries, (it for it in found.entries if it.paddr is not None))
    _add_new(headers.unplaced, (it for it in found.entries if it.paddr is None))
    # Registers that firmware saved at death come behind those of the ELF header, which
    # are older, or nothing but zeros.
    registers = [note for note in found.notes if is_registers(note)]
    if registers:
        headers.notes[:] = [it for it in headers.notes if not is_registers(it)]
    headers.notes.extend(registers if headers.notes else found.notes)
    for note in found.notes:
        if note.name == "VMCOREINFO" and note.desc.startswith(_INFO_START):
            try:
                texts.append(VmcoreInfo.parse(note.desc, piece.name))
            except FormatError as error:
                problems.append(str(error))


def _add_new(entries: list[HeaderEntry], new: Iterable[HeaderEntry]) -> None:
    known = {(it.vaddr, it.paddr, it.size) for it in entries}
    entries.extend(it for it in new if (it.vaddr, it.paddr, it.size) not in known)


def _add_text(
    headers: Headers, piece: Piece, texts: list[VmcoreInfo], problems: list[str]
) -> None:
    try:
        texts.append(VmcoreInfo.parse(_read(piece, VMCOREINFO_LIMIT), piece.name))
    except FormatError as error:
        # A region that starts where the kernel keeps the text may end elsewhere.
        if piece.name.startswith(_INFO_NAME):
            problems.append(str(error))
        return
    headers.pieces.append(piece)
