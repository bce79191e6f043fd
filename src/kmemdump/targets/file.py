# SPDX-License-Identifier: GPL-2.0-or-later
"""
The common part of all targets that are files.

The functions that open one take the file, which belongs to the target from then on;
*vmcoreinfo*, used instead of the file's own; and *damaged*, whether the file may be
truncated.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from kmemdump.arch.architecture import arch_from_elf, arch_from_info
from kmemdump.errors import (
    FormatError,
    TargetError,
    TruncatedError,
    UnsupportedError,
)
from kmemdump.files import OpenFile
from kmemdump.formats.elf import NT_PRSTATUS, Note
from kmemdump.kernel_search.completion import complete
from kmemdump.kernel_search.finder import find_kernel
from kmemdump.memory.physical import Memory
from kmemdump.targets import Closing
from kmemdump.vmcoreinfo import VMCOREINFO_LIMIT, VmcoreInfo

__all__ = [
    "FileTarget",
    "check_whole",
    "noted_vmcoreinfo",
    "prstatus",
    "read_vmcoreinfo",
]

logger = logging.getLogger(__name__)


def read_vmcoreinfo(path: Path) -> VmcoreInfo:
    """
    Read a file with the text of VMCOREINFO.

    :raises KmemdumpError: If it cannot be read, or is something else.
    """
    file = OpenFile(path)
    try:
        return VmcoreInfo.parse(file.read(0, VMCOREINFO_LIMIT + 1), file.name)
    finally:
        file.close()


def check_whole(file: OpenFile, end: int, damaged: bool) -> list[str]:
    """
    Refuse a file that a full disk or an interrupted copy truncated.

    :param end: Least offset at which the file should end.
    :param damaged: Whether to only warn, and go on with the rest.
    :return: What it lacks, in a line; none if it is whole.
    :raises TruncatedError: If it ends earlier.
    """
    if end <= file.size:
        return []
    problem = (
        f"is truncated: {file.size} bytes, expected {end}; "
        f"{end - file.size} are missing"
    )
    if not damaged:
        raise TruncatedError(file.name, f"{problem}, copy it again")
    logger.warning("%s: %s", file.name, problem)
    return [problem]


def noted_vmcoreinfo(notes: Iterable[Note], source: str) -> VmcoreInfo | None:
    """Return the VMCOREINFO among *notes*, if there is one that can be parsed."""
    for note in notes:
        if note.name == "VMCOREINFO":
            try:
                return VmcoreInfo.parse(note.desc, f"{source}: VMCOREINFO")
            except FormatError as error:
                logger.warning("%s", error)
    return None


def prstatus(notes: Iterable[Note], machine: int, source: str) -> list[bytes]:
    """Return the NT_PRSTATUS descriptors among *notes*, one per CPU."""
    try:
        size = arch_from_elf(machine).prstatus_size
    except UnsupportedError:  # A firmware dump may be of any machine.
        size = -1
    found = []
    for note in notes:
        if note.name == "CORE" and note.type == NT_PRSTATUS:
            if len(note.desc) == size:
                found.append(note.desc)
            else:
                logger.warning(
                    "%s: NT_PRSTATUS of %d bytes skipped", source, len(note.desc)
                )
    return found


class FileTarget(Closing):
    """
    A file with a kernel's memory.

    :param machine: ELF ``e_machine``.
    :param notes: The file's notes about CPUs and kernel, if any.
    :param vmcoreinfo: VMCOREINFO, if it is known already; else it is looked for
        in *notes*, then in *memory*.
    """

    def __init__(
        self,
        name: str,
        machine: int,
        memory: Memory,
        notes: Iterable[Note] = (),
        vmcoreinfo: VmcoreInfo | None = None,
    ) -> None:
        self.name = name
        self.machine = machine
        self.memory = memory
        self._notes = list(notes)
        self._given = vmcoreinfo
        self._noted = noted_vmcoreinfo(self._notes, name)
        self._vmcoreinfo: VmcoreInfo | None = None
        self.lacks: list[str] = []
        """What was found missing in the file when it was opened, one line each."""
        self.sealed = False
        """Whether it was sealed: then nothing of it may reach a disk."""

    def vmcoreinfo(self) -> VmcoreInfo:
        """
        Return the VMCOREINFO of the kernel, completed; it is kept.

        :raises TargetError: If there is none.
        :raises FormatError: If there are several in memory.
        """
        if self._vmcoreinfo is None:
            self._vmcoreinfo = self._find_vmcoreinfo()
        return self._vmcoreinfo

    def _find_vmcoreinfo(self) -> VmcoreInfo:
        if self._given is not None:
            return complete(self._given, self.memory)
        found = find_kernel(self.memory, self.name, self._notes, self._noted)
        if found is None:
            raise TargetError(
                f"{self.name}: no VMCOREINFO in the notes nor in the memory, and no "
                "kernel found by its contents, expected the memory of a Linux kernel\n"
                "give it with --vmcoreinfo FILE if the memory is not complete"
            )
        return found

    def find_machine(self) -> Self:
        """
        Find the machine by the kernel, and return this target.

        :raises KmemdumpError: If there is no kernel; the target is closed then.
        """
        try:
            self.machine = arch_from_info(self.vmcoreinfo()).machine
        except BaseException:
            self.close()
            raise
        return self

    def registers(self) -> list[bytes]:
        """Return the NT_PRSTATUS descriptors in the order of the file."""
        return prstatus(self._notes, self.machine, self.name)

    def changed(self, memory: Memory, notes: Iterable[Note]) -> Self:
        """
        Return this target with other contents: the same kernel, and the same file.

        :param memory: Of the same ranges.
        """
        found = copy.copy(self)
        found.memory = memory
        found._notes = list(notes)
        return found

    def close(self) -> None:
        self.memory.close()
