# SPDX-License-Identifier: GPL-2.0-or-later
"""Note in physical memory what is known of virtual addresses, where it is captured."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from drgn import FaultError, Object, ObjectAbsentError

from kmemdump.errors import KmemdumpError
from kmemdump.kernel.attach import Kernel
from kmemdump.memory.physical import PAGE_SIZE
from kmemdump.memory.ranges import Range, parts_in
from kmemdump.redaction.reads import ByteRecorder, TextRun
from kmemdump.redaction.structures import Part, Structures

__all__ = ["ABSENT", "Known", "Places"]

_SOURCE = re.compile(
    rb"(?:\A|(?<![\x20-\x7e])(?:/|\.\./))[\x20-\x7e]*+(?:(?<=\.[chS])|(?<=\.rs))\0"
)
"""
The path of a source file that does not begin in the kernel's folder; at the start of
what is captured, also one whose beginning is not. ``WARN()`` and ``BUG()`` have such
paths, of folders of who built the kernel or the module.
"""
_LONGEST_NAME = 255  # NAME_MAX, include/uapi/linux/limits.h.
ABSENT = (
    AttributeError,
    FaultError,
    KmemdumpError,
    LookupError,
    ObjectAbsentError,
    OverflowError,
    TypeError,
    ValueError,
)
"""What drgn's helpers raise where memory, types or symbols are missing."""


@dataclass
class Known:
    """Places in physical memory."""

    own: list[Range] = field(default_factory=list)
    """The kernel build's own, and its modules': code and constants."""
    structure: list[Range] = field(default_factory=list)
    """Structure without a type: tables, the parts of the log."""
    parts: list[Part] = field(default_factory=list)
    """Parts of structures; the start is a physical address."""
    stacks: list[Range] = field(default_factory=list)
    texts: list[TextRun] = field(default_factory=list)
    modules: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    """What could not be looked for."""


class Places:
    """Finds the captured parts of virtual ranges, and notes what they are."""

    def __init__(self, kernel: Kernel, recorder: ByteRecorder) -> None:
        self.kernel = kernel
        self.prog = kernel.prog
        self.memory = recorder.memory
        self.known = Known()
        self._recorder = recorder
        self._structures = Structures()
        self._seen: set[tuple[int, str]] = set()
        # It ends with room for all registers of any processor; this one has fewer.
        self._task_size = 1 << 20
        try:
            symbol = self.prog.symbol("arch_task_struct_size")
            with recorder.unnoticed():
                self._task_size = self.prog.read_u32(symbol.address)
        except ABSENT:
            pass  # Not on every architecture.

    def own(self, address: int, size: int) -> None:
        """Note what is the kernel build's own."""
        self.known.own += (place for _, place in self._of(address, size))

    def constants(self, address: int, size: int) -> None:
        """Note constants of a module."""
        start, data = address, bytearray()
        for offset, place in self._of(address, size):
            self.known.own.append(place)
            for part in parts_in(place, self.memory.ranges):
                at = address + offset + part.start - place.start
                if at != start + len(data):
                    self._sources(start, data)
                    start, data = at, bytearray()
                data += self.memory.read(part.start, part.size)
        self._sources(start, data)

    def _sources(self, address: int, data: bytearray) -> None:
        for match in _SOURCE.finditer(data):
            self.text("paths", address + match.start(), len(match.group()))

    def image_constants(self, place: Range) -> None:
        """Note physical memory of the kernel's image that is its build's own."""
        for part in parts_in(place, self.memory.ranges):
            self.known.own.append(part)
            for match in _SOURCE.finditer(self.memory.read(part.start, part.size)):
                run = TextRun(part.start + match.start(), len(match.group()), "paths")
                self.known.texts.append(run)

    def structure(self, address: int, size: int) -> None:
        """Note structure that has no type."""
        self.known.structure += (place for _, place in self._of(address, size))

    def stack(self, address: int, size: int) -> None:
        """Note a stack."""
        self.known.stacks += (place for _, place in self._of(address, size))

    def part(self, address: int, size: int, code: int) -> None:
        """Note a part of a structure, by its code."""
        for _, place in self._of(address, size):
            self.known.parts.append(Part(place.start, place.size, code))

    def object(self, value: Object) -> None:
        """Note an object's parts."""
        if value.address_ is None:
            return
        key = value.address_, value.type_.type_name()
        if key in self._seen:
            return
        self._seen.add(key)
        parts = self._structures.parts(value.type_)
        size = sum(part.size for part in parts)
        if value.type_.type_name() == "struct task_struct":
            size = min(size, self._task_size)
        for offset, place in self._of(value.address_, size):
            for part in parts:
                start = max(part.start, offset)
                end = min(part.start + part.size, offset + place.size)
                if start < end:
                    at = place.start + start - offset
                    self.known.parts.append(Part(at, end - start, part.code))
        if value.type_.type_name() == "struct dentry":
            name = value.d_name
            with suppress(*ABSENT):
                size = min(name.len.value_(), _LONGEST_NAME) + 1
                self.text("paths", name.name.value_(), size)

    def text(self, kind: str, address: int, size: int) -> None:
        """Note text of a kind."""
        for run in self._joined(address, size):
            self.known.texts.append(TextRun(run.start, run.size, kind))

    def string(self, kind: str, address: int, limit: int) -> None:
        """Note a string that ends with a NUL."""
        for run in self._joined(address, limit):
            end = self.memory.read(run.start, run.size).find(b"\0")
            size = run.size if end < 0 else end + 1
            self.known.texts.append(TextRun(run.start, size, kind))
            if end >= 0:
                return

    def _joined(self, address: int, size: int) -> Iterator[Range]:
        """
        Yield what is captured of a virtual range, as one where pages are neighbours.

        A pattern has to find what begins in one page and ends in the next.
        """
        run: Range | None = None
        for _, place in self._of(address, size):
            for part in parts_in(place, self.memory.ranges):
                if run is not None and run.end == part.start:
                    run = Range(run.start, run.size + part.size)
                    continue
                if run is not None:
                    yield run
                run = part
        if run is not None:
            yield run

    def _of(self, address: int, size: int) -> Iterator[tuple[int, Range]]:
        """Yield offsets and physical ranges of the captured part of a virtual range."""
        end = address + size
        at = address
        while at < end:
            count = min(end - at, PAGE_SIZE - at % PAGE_SIZE)
            found = self._in_page(at, count)
            if found is not None:
                yield at - address, found
            at += count

    def _in_page(self, address: int, count: int) -> Range | None:
        try:
            self.prog.read(address, count)
        except ABSENT:
            # A part of a page may be captured: its last byte, or its first, says where.
            for at in (address, address + count - 1):
                try:
                    self.prog.read(at, 1)
                except ABSENT:
                    continue
                return Range(self._recorder.last[0] - (at - address), count)
            return None
        return Range(self._recorder.last[0], count)
