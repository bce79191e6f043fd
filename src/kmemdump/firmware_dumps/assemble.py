# SPDX-License-Identifier: GPL-2.0-or-later
"""
From pieces to a dump: each is put where its address says; what is missing is a hole.

The order of pieces, and the offsets in the ELF header, mean nothing here: both are
right only if all regions are there, in the right order, none cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kmemdump.errors import FormatError, NotCapturedError, TargetError
from kmemdump.firmware_dumps.fragments import FileSet, Piece, PlacedMemory, Placement
from kmemdump.firmware_dumps.headers import Headers, find_headers, is_registers
from kmemdump.firmware_dumps.identify import identify
from kmemdump.formats.elf import EM_AARCH64, Note
from kmemdump.formats.elfheader import HeaderEntry
from kmemdump.memory.ranges import Range, intersect, subtract

__all__ = ["Collected", "Named", "assemble"]

_CHUNK = 1 << 20
_MAX_PROBLEMS = 1000
_MAX_COMPARED = 1 << 30
"""Most bytes that are compared: a table may name the same memory again and again."""
_ADDRESS_END = 1 << 64


class Named(NamedTuple):
    """A range of physical memory with the name of its region."""

    name: str
    range: Range
    virtual: int | None = None
    """Kernel virtual address in bytes, if the ELF header tells."""


class Collected(NamedTuple):
    """A dump, put together."""

    source: str
    machine: int
    """ELF ``e_machine``."""
    memory: PlacedMemory
    regions: tuple[Named, ...]
    """What should be there, by address; the same memory may be named twice."""
    missing: tuple[Named, ...]
    """What is not."""
    problems: tuple[str, ...]
    """What a person should know, one line each."""
    notes: tuple[Note, ...]
    """CPUs' registers and VMCOREINFO, as far as they are there."""
    marked: int | None = None
    """When the regions were marked, where that is known: seconds since the epoch."""
    backend: str = "minidump"
    """Name of the backend whose table it is."""


def assemble(
    source: str,
    pieces: Sequence[Piece],
    *,
    files: FileSet | None = None,
    problems: Iterable[str] = (),
    described: bool = True,
) -> Collected:
    """
    Put the pieces of a dump together.

    :param source: Name of the dump, for messages.
    :param files: Closed together with the memory of the result.
    :param problems: What is known to be wrong already.
    :param described: Whether a dump of this kind has an ELF header region.
    :raises TargetError: If nothing can be placed.
    """
    work = _Assembly(list(problems))
    headers = find_headers(pieces, work.problems, described=described)
    identified = identify(pieces, headers, work.problems)
    for entry in headers.entries:
        assert entry.paddr is not None
        work.expect(entry, identified)
    work.place(identified)
    if not work.placements:
        raise TargetError(
            f"{source}: none of {len(pieces)} pieces can be placed: no ELF header "
            "region (KELF) that fits, and no addresses"
            + "".join(f"\n{line}" for line in work.problems[:5])
        )
    return Collected(
        source,
        _machine(headers),
        PlacedMemory(work.placements, source, files),
        tuple(sorted(work.regions, key=lambda it: (it.range, it.name))),
        tuple(work.missing()),
        tuple(work.problems[:_MAX_PROBLEMS]),
        _notes(headers),
        headers.marked,
    )


def _machine(headers: Headers) -> int:
    if headers.machine is not None:
        return headers.machine
    if headers.vmcoreinfo is not None:
        # Here, for most dumps tell it in their ELF header.
        from kmemdump.arch.architecture import arch_of

        try:
            return arch_of(headers.vmcoreinfo).machine
        except FormatError:
            pass
    return EM_AARCH64  # Nearly all that has such firmware.


def _notes(headers: Headers) -> tuple[Note, ...]:
    # The kernel's series has one with nothing but zeros in it.
    notes = [note for note in headers.notes if is_registers(note)]
    if headers.vmcoreinfo is not None:
        notes.append(Note("VMCOREINFO", 0, headers.vmcoreinfo.raw))
    return tuple(notes)


class _Assembly:
    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        self.regions: list[Named] = []
        self.placements: list[Placement] = []
        self._compared = 0
        self._sizes: dict[int, int] = {}  # By address, as the ELF header says.
        self._longest: dict[int, int] = {}  # By address, as the table says.

    def expect(self, entry: HeaderEntry, pieces: Sequence[Piece]) -> None:
        """Note that a region should be there."""
        assert entry.paddr is not None
        name = entry.name or next(
            (piece.name for piece in pieces if piece.address == entry.paddr),
            f"{entry.paddr:#x}",
        )
        where = Range(entry.paddr, entry.size)
        self.regions.append(Named(name, where, entry.vaddr))
        self._sizes[entry.paddr] = max(self._sizes.get(entry.paddr, 0), entry.size)

    def place(self, pieces: Iterable[Piece]) -> None:
        """Place all pieces that have an address."""
        pieces = list(pieces)
        for piece in pieces:
            if piece.address is not None and piece.size is not None:
                longest = self._longest.get(piece.address, 0)
                self._longest[piece.address] = max(longest, piece.size)
        wanted = []
        known = {region.range for region in self.regions}
        for piece in pieces:
            if piece.address is None:
                continue
            piece = self._sized(piece)
            assert piece.address is not None
            assert piece.size is not None
            if piece.address + piece.size > _ADDRESS_END:
                self.problems.append(f"{piece.name} wraps around the end of memory")
                continue
            where = Range(piece.address, piece.size)
            if where not in known:
                known.add(where)
                self.regions.append(Named(piece.name, where))
            held = min(piece.store.size, piece.size)
            if held:
                wanted.append((piece, Placement(piece.address, held, piece.store, 0)))
        # The longer of two at one address first, so that the other is compared.
        wanted.sort(key=lambda it: (it[1].address, -it[1].size))
        self._merge(wanted)

    def missing(self) -> Iterable[Named]:
        """Find what should be there and is not."""
        held = [Range(item.address, item.size) for item in self.placements]
        holes = subtract([region.range for region in self.regions], held)
        seen = set()
        for region in self.regions if holes else ():
            for hole in intersect([region.range], holes):
                if hole not in seen:
                    seen.add(hole)
                    yield Named(region.name, hole)

    def _sized(self, piece: Piece) -> Piece:
        """Decide how long a piece should be, and tell if it is not."""
        assert piece.address is not None
        stored, told = piece.store.size, piece.size
        expected = self._sizes.get(piece.address)
        if told is None:
            told = stored if expected is None else expected
        # Another row may be longer, of which this one is the beginning.
        elif expected is not None and expected > self._longest[piece.address] + 3:
            self.problems.append(
                f"{piece.name} has {told} bytes in the table, but {expected} in the "
                "ELF header"
            )
        if 0 < stored < told:  # What has nothing is missing, and is told so.
            self.problems.append(
                f"{piece.name} is truncated: {stored} of {told} bytes are there"
            )
        elif stored > told + 3 or (stored > told and stored % 4):  # No padding.
            self.problems.append(
                f"{piece.name} has {stored} bytes, expected {told}; "
                "the rest is left out"
            )
        return piece._replace(size=told)

    def _merge(self, wanted: list[tuple[Piece, Placement]]) -> None:
        """Keep one of what is there twice, and compare."""
        end = 0
        owners: list[tuple[Piece, Placement]] = []  # Those that reach furthest.
        for piece, item in wanted:
            cut = min(max(end - item.address, 0), item.size)
            if cut:
                self._compare(piece, item, owners)
            if cut < item.size:
                left = Placement(
                    item.address + cut, item.size - cut, item.store, item.offset + cut
                )
                self.placements.append(left)
                owners = [
                    it for it in owners if it[1].address + it[1].size > item.address
                ]
                owners.append((piece, left))
                end = item.address + item.size

    def _compare(
        self, piece: Piece, item: Placement, owners: list[tuple[Piece, Placement]]
    ) -> None:
        for owner, other in owners:
            start = max(item.address, other.address)
            size = min(item.address + item.size, other.address + other.size) - start
            if size <= 0 or self._compared + size > _MAX_COMPARED:
                continue
            self._compared += size
            at = _first_difference(
                item,
                item.offset + start - item.address,
                other,
                other.offset + start - other.address,
                size,
            )
            if at is not None:
                self.problems.append(
                    f"{owner.name} and {piece.name} disagree from {start + at:#x} on; "
                    f"{owner.name} is taken"
                )


def _first_difference(
    one: Placement, one_at: int, two: Placement, two_at: int, size: int
) -> int | None:
    for at in range(0, size, _CHUNK):
        count = min(_CHUNK, size - at)
        try:
            left = one.store.read(one_at + at, count)
            right = two.store.read(two_at + at, count)
        except NotCapturedError:
            return at
        if left != right:
            pairs = enumerate(zip(left, right, strict=False))
            return at + next((i for i, (a, b) in pairs if a != b), 0)
    return None
