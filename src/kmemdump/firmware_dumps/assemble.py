# SPDX-License-Identifier: GPL-2.0-or-later
"""
Put the fragments of a dump together by their addresses; missing ones leave holes.

The order of the fragments and the offsets in the ELF header are ignored: both are right
only if all regions are there, whole and in the right order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kmemdump.arch.architecture import arch_from_info
from kmemdump.errors import FormatError, NotCapturedError, TargetError
from kmemdump.firmware_dumps.fragment_addresses import identify
from kmemdump.firmware_dumps.fragments import (
    Fragment,
    FragmentExtent,
    FragmentMemory,
    OpenFiles,
)
from kmemdump.firmware_dumps.headers import Headers, find_headers, is_registers
from kmemdump.formats.elf import EM_AARCH64, Note
from kmemdump.formats.elfheader import HeaderEntry
from kmemdump.memory.ranges import ADDRESS_SPACE, Range, intersect, subtract

__all__ = ["FirmwareDump", "NamedRange", "assemble"]

_CHUNK = 1 << 20
_MAX_PROBLEMS = 1000
_MAX_COMPARED = 1 << 30
"""Most bytes to compare: a table may list the same memory again and again."""
_LEAST_COMPARED = 64 << 10
"""What a comparison counts at least: there may be one for each two fragments."""

_Extent = tuple[Fragment, FragmentExtent]


class NamedRange(NamedTuple):
    """A range of physical memory with the name of its region."""

    name: str
    range: Range
    virtual: int | None = None
    """Kernel virtual address in bytes, if the ELF header has it."""


class FirmwareDump(NamedTuple):
    """A firmware dump of a kernel, put together."""

    source: str
    machine: int
    """ELF ``e_machine``."""
    memory: FragmentMemory
    regions: tuple[NamedRange, ...]
    """The regions expected, by address; ranges may overlap."""
    missing: tuple[NamedRange, ...]
    """The parts of the regions that are missing."""
    problems: tuple[str, ...]
    """Problems that a user should know, one line each."""
    notes: tuple[Note, ...]
    """Registers of CPUs, and VMCOREINFO, if the dump has them."""
    marked: int | None = None
    """When the regions were marked, in seconds since 1970; ``None`` if not known."""
    backend: str = "minidump"
    """Name of the backend that the regions were registered with."""

    @property
    def warnings(self) -> list[str]:
        """The problems and what is missing, one line each."""
        missing = [f"{item.name} is missing: {item.range}" for item in self.missing]
        return [*self.problems, *missing]


def assemble(
    source: str,
    fragments: Sequence[Fragment],
    *,
    files: OpenFiles | None = None,
    problems: Iterable[str] = (),
    described: bool = True,
) -> FirmwareDump:
    """
    Put the fragments of a dump together.

    :param source: Name of the dump, for messages.
    :param files: Closed together with the memory of the result.
    :param problems: Problems that are known already.
    :param described: Whether a dump of this kind has an ELF header region.
    :raises TargetError: If no fragment has an address.
    """
    work = _Assembly(list(problems))
    headers = find_headers(fragments, work.problems, described=described)
    identified = identify(fragments, headers, work.problems)
    for entry in headers.entries:
        assert entry.paddr is not None
        work.expect(entry, identified)
    work.take(identified)
    if not work.extents:
        raise TargetError(
            f"{source}: none of {len(fragments)} fragments has an address: there is no "
            "ELF header region (KELF) with theirs, and no list of them"
            + "".join(f"\n{line}" for line in work.problems[:5])
        )
    return FirmwareDump(
        source,
        _machine(headers),
        FragmentMemory(work.extents, source, files),
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
        try:
            return arch_from_info(headers.vmcoreinfo).machine
        except FormatError:
            pass
    return EM_AARCH64  # The machine of nearly all such firmware.


def _notes(headers: Headers) -> tuple[Note, ...]:
    # The kernel's series writes a note of registers that has only zeros.
    notes = [note for note in headers.notes if is_registers(note)]
    if headers.vmcoreinfo is not None:
        notes.append(Note("VMCOREINFO", 0, headers.vmcoreinfo.raw))
    return tuple(notes)


class _Assembly:
    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        self.regions: list[NamedRange] = []
        self.extents: list[FragmentExtent] = []
        self._compared = 0
        self._sizes: dict[int, int] = {}  # By address, as the ELF header says.
        self._longest: dict[int, int] = {}  # By address, as the table says.

    def expect(self, entry: HeaderEntry, fragments: Sequence[Fragment]) -> None:
        """Add a region that should be there."""
        assert entry.paddr is not None
        name = entry.name or next(
            (
                fragment.name
                for fragment in fragments
                if fragment.address == entry.paddr
            ),
            f"{entry.paddr:#x}",
        )
        where = Range(entry.paddr, entry.size)
        self.regions.append(NamedRange(name, where, entry.vaddr))
        self._sizes[entry.paddr] = max(self._sizes.get(entry.paddr, 0), entry.size)

    def take(self, fragments: Sequence[Fragment]) -> None:
        """Take all fragments that have an address."""
        for fragment in fragments:
            if fragment.address is not None and fragment.size is not None:
                longest = self._longest.get(fragment.address, 0)
                self._longest[fragment.address] = max(longest, fragment.size)
        wanted = []
        known = {region.range for region in self.regions}
        for fragment in fragments:
            fragment = self._sized(fragment)
            assert fragment.address is not None
            assert fragment.size is not None
            if fragment.address + fragment.size > ADDRESS_SPACE:
                self.problems.append(f"{fragment.name} wraps around the end of memory")
                continue
            where = Range(fragment.address, fragment.size)
            if where not in known:
                known.add(where)
                self.regions.append(NamedRange(fragment.name, where))
            held = min(fragment.contents.size, fragment.size)
            if held:
                extent = FragmentExtent(fragment.address, held, fragment.contents, 0)
                wanted.append((fragment, extent))
        # Of two at one address, the longer comes first; the other is compared with it.
        wanted.sort(key=lambda it: (it[1].address, -it[1].size))
        self._merge(wanted)

    def missing(self) -> Iterable[NamedRange]:
        """Yield the memory that should be there and is not."""
        held = [Range(item.address, item.size) for item in self.extents]
        holes = subtract([region.range for region in self.regions], held)
        seen = set()
        for region in self.regions if holes else ():
            for hole in intersect([region.range], holes):
                if hole not in seen:
                    seen.add(hole)
                    yield NamedRange(region.name, hole)

    def _sized(self, fragment: Fragment) -> Fragment:
        """Return the fragment with the size that it should have."""
        assert fragment.address is not None
        found, size = fragment.contents.size, fragment.size
        expected = self._sizes.get(fragment.address)
        if size is None:
            size = found if expected is None else expected
        # This row may be the beginning of another one, which is longer.
        elif expected is not None and expected > self._longest[fragment.address] + 3:
            self.problems.append(
                f"{fragment.name} has {size} bytes in the table and {expected} in the "
                "ELF header"
            )
        if 0 < found < size:  # One without any bytes is reported as missing.
            self.problems.append(
                f"{fragment.name} is truncated: {found} of {size} bytes are there"
            )
        elif found > size + 3 or (found > size and found % 4):  # Not mere padding.
            self.problems.append(
                f"{fragment.name} has {found} bytes, expected {size}; "
                "the rest is left out"
            )
        return fragment._replace(size=size)

    def _merge(self, wanted: list[_Extent]) -> None:
        """Keep one copy of memory that was found twice, and compare the copies."""
        end = 0
        # Those that may overlap the next one; they ascend, and none overlaps another.
        owners: deque[_Extent] = deque()
        for fragment, item in wanted:
            while owners and _end(owners[0][1]) <= item.address:
                owners.popleft()
            cut = min(max(end - item.address, 0), item.size)
            if cut:
                self._compare(fragment, item, owners)
            if cut < item.size:
                rest = item._replace(
                    address=item.address + cut,
                    size=item.size - cut,
                    offset=item.offset + cut,
                )
                self.extents.append(rest)
                owners.append((fragment, rest))
                end = _end(item)

    def _compare(
        self, fragment: Fragment, item: FragmentExtent, owners: Iterable[_Extent]
    ) -> None:
        for owner, other in owners:
            start = max(item.address, other.address)
            size = min(_end(item), _end(other)) - start
            self._compared += max(size, _LEAST_COMPARED)
            if size <= 0 or self._compared > _MAX_COMPARED:
                return
            at = _first_difference(
                item,
                item.offset + start - item.address,
                other,
                other.offset + start - other.address,
                size,
            )
            if at is not None:
                self.problems.append(
                    f"{owner.name} and {fragment.name} disagree from {start + at:#x} "
                    f"on; {owner.name} is used"
                )


def _end(item: FragmentExtent) -> int:
    return item.address + item.size


def _first_difference(
    one: FragmentExtent, one_at: int, two: FragmentExtent, two_at: int, size: int
) -> int | None:
    for at in range(0, size, _CHUNK):
        count = min(_CHUNK, size - at)
        try:
            left = one.contents.read(one_at + at, count)
            right = two.contents.read(two_at + at, count)
        except NotCapturedError:
            return at
        if left != right:
            pairs = enumerate(zip(left, right, strict=False))
            return at + next((i for i, (a, b) in pairs if a != b), 0)
    return None
