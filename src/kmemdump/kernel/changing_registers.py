# SPDX-License-Identifier: GPL-2.0-or-later
"""
Registers of a kernel's CPUs that change while one program looks at it.

drgn reads NT_PRSTATUS notes of a core file once. But if VMCOREINFO says when the kernel
crashed, it reads the registers from the kernel's memory, each time: from the per-CPU
variable ``crash_notes`` (drgn_get_initial_registers_from_kernel_core_dump() in drgn's
libdrgn/stack_trace.c). So a program that is to last has such a line, and a variable of
that name where no kernel has memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from drgn import FindObjectFlags, Object, Program

from kmemdump.formats.elf import NT_PRSTATUS, pack_note
from kmemdump.kernel.program import REGISTERS
from kmemdump.memory.ranges import ADDRESS_SPACE
from kmemdump.memory.recorder import Recorder

__all__ = ["CRASH_TIME", "add_changing_registers"]

CRASH_TIME = {"CRASHTIME": "0"}
"""Line of VMCOREINFO because of which drgn reads ``crash_notes``."""

_NAME = "kmemdump_registers"
_PLACE = 1 << 52
"""
Beyond user space, and no address of the kernel: those of x86_64 and aarch64 have all of
their upper bits set.
"""
_NEAR = 1 << 51
_NOTE = 1024
"""Bytes of a CPU's notes: more than an NT_PRSTATUS and the end of the notes."""


def add_changing_registers(prog: Program, recorder: Recorder) -> bool:
    """
    Let drgn take the registers of each CPU from the program's ``config``, each time.

    :param prog: A program with :data:`CRASH_TIME` in its VMCOREINFO, and symbols.
    :param recorder: Is told when registers are used, since they always change.
    :return: Whether that is possible. If not, running tasks have no stack traces.
    """
    count = len(prog.config.get(REGISTERS, ()))
    try:
        offsets = [prog["__per_cpu_offset"][cpu].value_() for cpu in range(count)]
    except LookupError:
        return False
    first = offsets[0] if offsets else 0
    places = [_PLACE + offset - first for offset in offsets]
    apart = all(abs(place - _PLACE) < _NEAR for place in places)
    if not apart or len(set(places)) < len(places):
        return False
    for cpu, place in enumerate(places):
        prog.add_memory_segment(place, _NOTE, _reader(prog, recorder, cpu), False)
    kind = prog.array_type(prog.int_type("unsigned char", 1, False), _NOTE)
    value = (_PLACE - first) % ADDRESS_SPACE
    found = Object(prog, prog.pointer_type(kind), value=value)

    def find(
        _prog: Program, name: str, flags: FindObjectFlags, _filename: str | None
    ) -> Object | None:
        is_it = name == "crash_notes" and flags & FindObjectFlags.VARIABLE
        return found if is_it else None

    prog.register_object_finder(_NAME, find, enable_index=0)
    return True


def _reader(
    prog: Program, recorder: Recorder, cpu: int
) -> Callable[[int, int, int, bool], bytes]:
    def read(_address: int, count: int, offset: int, _physical: bool) -> bytes:
        recorder.note_volatile()
        statuses: Sequence[bytes] = prog.config[REGISTERS]
        notes = b""
        if cpu < len(statuses):
            notes = pack_note("CORE", NT_PRSTATUS, statuses[cpu])
        return notes.ljust(_NOTE, b"\0")[offset : offset + count]

    return read
