# SPDX-License-Identifier: GPL-2.0-or-later
"""
A ``Raw_Dmp!`` image, in a file or in the partition where firmware or a crash kernel
left it.
"""

from __future__ import annotations

from kmemdump.errors import KmemdumpError
from kmemdump.files import OpenFile
from kmemdump.firmware_dumps.assemble import FirmwareDump, assemble
from kmemdump.firmware_dumps.fragments import (
    FileContents,
    Fragment,
    OpenFiles,
    label_of,
    read_start,
)
from kmemdump.formats.copied import check_copy, read_copied
from kmemdump.formats.rawdump import SectionType, parse_rawdump

__all__ = ["collect_rawdump"]

_MAX_COPIES = 16
"""Sections that may be a crash kernel's copy; an image has one."""


def collect_rawdump(file: OpenFile) -> FirmwareDump:
    """
    Put together the sections of an image.

    :param file: Stays the caller's.
    :raises FormatError: If it is not such an image.
    :raises TargetError: If it holds no memory.
    """
    image = parse_rawdump(file.read, file.size, file.name)
    problems = list(image.problems)
    files = OpenFiles()
    fragments = []
    copied = False
    tried = 0
    for section in image.sections:
        contents = FileContents(files, str(file.path), section.offset, section.held)
        label = label_of(section.name)
        if section.address is not None:
            fragments.append(Fragment(label, contents, section.address, section.size))
        elif section.type == SectionType.CPU_CONTEXT:
            # Each vendor has a format of its own; only ELF notes are known.
            is_elf = read_start(contents, 4) == b"\x7fELF"
            if is_elf and tried < _MAX_COPIES:
                fragments.append(Fragment(label, contents))
                tried += 1
                copied = copied or _check_copy(file, section.offset, problems)
            else:
                problems.append(f"section {section.name} (CPU context) is not used")
    try:
        dump = assemble(
            file.name,
            fragments,
            files=files,
            problems=problems,
            # A dump of all memory has no table of regions, so none that describes them.
            described=any(it.name.startswith("md_") for it in image.sections),
        )
    except BaseException:
        files.close()
        raise
    return dump._replace(backend="kdump") if copied else dump


def _check_copy(file: OpenFile, start: int, problems: list[str]) -> bool:
    """Check the copy of a crash kernel, and return whether it is one."""

    def read(offset: int, count: int) -> bytes:
        return file.read(start + offset, count)

    try:
        copied = read_copied(read, file.size - start, file.name)
        if copied is not None:
            problems += check_copy(read, copied, file.name)
    except KmemdumpError as error:
        problems.append(str(error))
        return False
    return copied is not None
