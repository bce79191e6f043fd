# SPDX-License-Identifier: GPL-2.0-or-later
"""A ``Raw_Dmp!`` image, in a file or in the partition where firmware left it."""

from __future__ import annotations

from kmemdump.firmware_dumps.assemble import Collected, assemble
from kmemdump.firmware_dumps.fragments import FileSet, FileStore, Piece
from kmemdump.firmware_dumps.names import label_of
from kmemdump.formats.rawdump import SectionType, parse_rawdump
from kmemdump.targets.file import OpenFile

__all__ = ["collect_rawdump"]


def collect_rawdump(file: OpenFile) -> Collected:
    """
    Put together what is in an image.

    :param file: Stays the caller's.
    :raises FormatError: If it is no such image.
    :raises TargetError: If there is no memory in it.
    """
    image = parse_rawdump(file.read, file.size, file.name)
    problems = list(image.problems)
    files = FileSet()
    pieces = []
    for section in image.sections:
        store = FileStore(files, str(file.path), section.offset, section.held)
        if section.address is None:
            if section.type == SectionType.CPU_CONTEXT:
                # Each vendor has a format of its own; ELF notes are what we know.
                if file.read(section.offset, 4) == b"\x7fELF":
                    pieces.append(Piece(label_of(section.name), store, None, None))
                else:
                    problems.append(f"section {section.name} (CPU context) is not used")
            continue
        piece = Piece(label_of(section.name), store, section.address, section.size)
        pieces.append(piece)
    try:
        return assemble(file.name, pieces, files=files, problems=problems)
    except BaseException:
        files.close()
        raise
