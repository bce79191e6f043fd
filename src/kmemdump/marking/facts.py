# SPDX-License-Identifier: GPL-2.0-or-later
"""What a core image says about a kernel that was looked at."""

from __future__ import annotations

from itertools import islice

from drgn import FaultError, Program
from drgn.helpers.linux.cpumask import for_each_online_cpu

from kmemdump.coreimage import AreaRecord, QuestionRecord
from kmemdump.kernel.attach import Kernel
from kmemdump.marking.mark import AreaResult
from kmemdump.memory.spans import BLOCK_SIZE

__all__ = ["command_line", "online_first", "record_area"]

_PR_PID = 32
"""Offset of the member in ``struct elf_prstatus`` of every 64-bit architecture."""


def online_first(kernel: Kernel) -> list[bytes]:
    """Return NT_PRSTATUS of each CPU, those of online CPUs first."""
    # Without QEMU's own notes, crash assigns the NT_PRSTATUS to the online CPUs in
    # order (map_cpus_to_prstatus(), netdump.c). A kernel that panics takes the other
    # CPUs offline. drgn is not affected: it uses the CPU number (plus 1), which QEMU
    # puts in the field for a process id.
    numbers = [
        int.from_bytes(status[_PR_PID : _PR_PID + 4], "little") - 1
        for status in kernel.registers
    ]
    if sorted(numbers) != list(range(len(numbers))):
        return list(kernel.registers)  # From kdump, which orders them itself.
    try:
        online = set(islice(for_each_online_cpu(kernel.prog), len(numbers)))
    except Exception:  # drgn's helpers may raise any if the kernel is damaged.
        online = set()
    order = sorted(
        zip(numbers, kernel.registers, strict=True),
        key=lambda item: (item[0] not in online, item[0]),
    )
    return [status for _, status in order]


def command_line(prog: Program) -> str:
    """Return the kernel's command line; empty if it is not known."""
    try:
        line: bytes = prog["saved_command_line"].string_()
    except (LookupError, FaultError):
        return ""
    return line.decode("utf-8", "replace")


def record_area(area: AreaResult) -> AreaRecord:
    """Return an area's entry in a manifest."""
    return AreaRecord(
        name=area.name,
        complete=area.reason is None,
        reason=area.reason or "",
        bytes=len(area.own) * BLOCK_SIZE,
        questions=[
            QuestionRecord(it.text, it.reason is None, it.reason or "")
            for it in area.questions
        ],
    )
