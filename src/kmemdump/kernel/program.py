# SPDX-License-Identifier: GPL-2.0-or-later
"""Make a :class:`drgn.Program` from notes and memory."""

from __future__ import annotations

import os
from collections.abc import Sequence

from drgn import Program

from kmemdump.errors import FormatError
from kmemdump.formats.elf import (
    NT_PRSTATUS,
    PT_LOAD,
    PT_NOTE,
    ProgramHeader,
    header_size,
    pack_header,
    pack_note,
)
from kmemdump.memory.ranges import ADDRESS_SPACE
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["NAME", "core_program"]

NAME = "kmemdump_name"
"""
Key of the target's name in the ``config`` of a program made here. Our drgn plugin adds
nothing to such a program.
"""
REGISTERS = "kmemdump_registers"
"""Likewise: NT_PRSTATUS of each CPU, in CPU order."""
RECORDER = "kmemdump_recorder"
"""Likewise: the :class:`~kmemdump.memory.recorder.Recorder` that reads its memory."""
OBJECTS = "kmemdump_objects"
"""
Likewise, where someone wants to know: a function that is called with each object that
areas read whole.
"""

_NO_ADDRESS = ADDRESS_SPACE - 1


def core_program(
    machine: int,
    info: VmcoreInfo,
    name: str,
    registers: Sequence[bytes] = (),
    segments: Sequence[tuple[int, bytes]] = (),
) -> Program:
    """
    Return a program for a kernel, without most of its memory.

    It is made from a core file in memory, which gives drgn the registers of each CPU;
    ``set_linux_kernel_custom()`` does not take them.

    :param machine: ELF machine, such as ``EM_X86_64``.
    :param name: Name of the target, for messages.
    :param registers: NT_PRSTATUS of each CPU, in CPU order.
    :param segments: Virtual addresses and the bytes there.
    :raises FormatError: If drgn refuses the VMCOREINFO.
    """
    notes = [pack_note("CORE", NT_PRSTATUS, status) for status in registers]
    notes.append(pack_note("VMCOREINFO", 0, info.raw))
    note_data = b"".join(notes)
    offset = header_size(1 + len(segments))
    size = len(note_data)
    headers = [ProgramHeader(PT_NOTE, 0, offset, 0, 0, size, size, 0)]
    for address, data in segments:
        offset, size = offset + size, len(data)
        headers.append(
            ProgramHeader(PT_LOAD, 0, offset, address, _NO_ADDRESS, size, size, 0)
        )
    prog = Program()
    prog.config[NAME] = name
    prog.config[REGISTERS] = tuple(registers)
    fd = os.memfd_create("kmemdump-core", os.MFD_CLOEXEC)
    with os.fdopen(fd, "wb") as file:
        file.write(pack_header(machine, headers) + note_data)
        for _, data in segments:
            file.write(data)
        file.flush()
        try:
            prog.set_core_dump(os.dup(fd))  # drgn closes the file that it is given.
        except Exception as error:  # drgn raises many kinds, even plain Exception.
            raise FormatError(info.source, f"drgn refuses it: {error}") from error
    return prog
