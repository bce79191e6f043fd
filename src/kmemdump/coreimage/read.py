# SPDX-License-Identifier: GPL-2.0-or-later
"""Read an ELF core of a kernel: a core image, or another program's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from kmemdump.coreimage.manifest import Manifest
from kmemdump.coreimage.packed import find_packed
from kmemdump.errors import FormatError
from kmemdump.files import OpenFile
from kmemdump.formats.debug_info import DebugInfoNote, parse_debug_info
from kmemdump.formats.elf import PT_LOAD, ProgramHeader, parse_core
from kmemdump.formats.notes import OWNER, NoteType, find_own
from kmemdump.formats.sealed import AGE_MAGIC, ClearLine, find_sealed
from kmemdump.memory.physical import FileMemory, JoinedMemory, Memory
from kmemdump.memory.ranges import ADDRESS_SPACE, Extent, flatten

__all__ = ["NO_ADDRESS", "CoreImage", "compare_clear", "find_extents", "read_core"]

NO_ADDRESS = ADDRESS_SPACE - 1
"""``p_paddr`` in /proc/kcore of memory without a physical address."""


class CoreImage:
    """
    An ELF core of a kernel.

    A truncated core has its remaining memory: see
    :func:`kmemdump.coreimage.verify.verify`. So has one with a broken note.

    :param file: Belongs to this object from here on, unless the constructor raises.
    :raises FormatError: If it is not an ELF core, or if its headers or the table of its
        packed memory are broken.
    """

    def __init__(self, file: OpenFile) -> None:
        self.problems: list[str] = []
        """What is wrong with notes that were passed over, one line each."""
        core = parse_core(file.read, file.size, file.name, self.problems)
        self.name = file.name
        self.path = file.path
        self.size = file.size
        """Size of the file in bytes."""
        self.debug_info_is_whole = False
        """Whether the note of symbols and types is known to be undamaged."""
        self.machine = core.machine
        """``e_machine``."""
        self.headers = core.headers
        self.notes = core.notes
        self.packed = find_packed(core.notes, file.name)
        """The memory that is compressed; ``None`` if there is none."""
        extents = flatten(find_extents(core.headers, file.size, file.name))
        self.memory: Memory = FileMemory(file.detach(), extents, file.name)
        """The physical memory in the file, packed or not."""
        if self.packed is not None:
            self.memory = JoinedMemory(self.memory, self.packed)

    @cached_property
    def manifest(self) -> Manifest | None:
        """
        The manifest; ``None`` if kmemdump did not write the file.

        :raises FormatError: If it is broken, or of a higher version.
        """
        desc = find_own(self.notes, NoteType.MANIFEST)
        if desc is None:
            return None
        return Manifest.from_json(desc, f"{self.name}: note {OWNER}")

    @property
    def has_manifest(self) -> bool:
        """Whether kmemdump wrote the file."""
        return find_own(self.notes, NoteType.MANIFEST) is not None

    @property
    def has_debug_info(self) -> bool:
        """Whether symbols and types are in it, in a note."""
        return find_own(self.notes, NoteType.DEBUG_INFO) is not None

    def debug_info(self) -> DebugInfoNote:
        """
        Return the symbols and types in the note.

        :raises FormatError: If there are none, or they are damaged.
        """
        note = self.debug_info_note()
        found = parse_debug_info(note, f"{self.name}: note {OWNER}")
        self.debug_info_is_whole = True
        return found

    def debug_info_note(self) -> bytes:
        """
        Return the note of symbols and types as it is.

        :raises FormatError: If there is none.
        """
        desc = find_own(self.notes, NoteType.DEBUG_INFO)
        if desc is None:
            raise FormatError(self.name, "no symbols and types")
        return desc

    def close(self) -> None:
        """Close the file."""
        self.memory.close()

    def __enter__(self) -> CoreImage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_core(path: str | os.PathLike[str]) -> CoreImage:
    """
    Open an ELF core, whatever is in it.

    :raises FormatError: As :class:`CoreImage`.
    :raises TargetError: If it cannot be opened.
    """
    file = OpenFile(Path(path))
    try:
        return CoreImage(file)
    except BaseException:
        file.close()
        raise


def compare_clear(core: CoreImage, clear: ClearLine) -> list[str]:
    """
    Compare a core image that was sealed with what is said of it without a key.

    :return: The differences, one line each: whoever had the file may have changed that.
    """
    try:
        manifest = core.manifest
    except FormatError:
        return []  # Whoever asks for it is told.
    if manifest is None:
        return []
    signature = manifest.signature if clear.signature else ""
    true = clear._replace(
        release=manifest.kernel.osrelease, time=manifest.time, signature=signature
    )
    # As it was written, where a long text is cut, or left out.
    written = find_sealed(true.pack() + AGE_MAGIC, core.name)
    assert written is not None
    assert written.clear is not None
    return [
        f"{core.name}: line 1: {name} {said}, but {found} is sealed: "
        "somebody changed the line"
        for name, said, found in zip(
            ClearLine._fields, clear, written.clear, strict=True
        )
        if said != found
    ]


def find_extents(
    headers: Iterable[ProgramHeader], size: int, source: str
) -> Iterator[Extent]:
    """
    Yield the physical memory in an ELF core, as far as the file goes.

    :param size: Size of the file in bytes.
    :param source: Name of the file, for messages.
    :raises FormatError: If a segment is not within 64 bits.
    """
    for header in headers:
        if header.type != PT_LOAD or header.paddr == NO_ADDRESS:
            continue
        if header.paddr + header.filesz > ADDRESS_SPACE:
            raise FormatError(
                f"{source}: PT_LOAD at {header.offset:#x}",
                f"{header.filesz:#x} bytes from {header.paddr:#x} wrap around",
            )
        held = min(header.filesz, size - header.offset)
        if held > 0:
            yield Extent(header.paddr, held, header.offset)
