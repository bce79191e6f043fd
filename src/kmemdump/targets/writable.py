# SPDX-License-Identifier: GPL-2.0-or-later
"""Open the memory of a target for writing, where that is possible."""

from __future__ import annotations

import os
from collections.abc import Iterable

from kmemdump.errors import TargetError, UnsupportedError
from kmemdump.memory.changing import ChangingMemory
from kmemdump.memory.mapped import MappedMemory
from kmemdump.memory.physical import FileMemory
from kmemdump.memory.ranges import Range
from kmemdump.targets import Target
from kmemdump.targets.devmem import open_reserved
from kmemdump.targets.live import LiveTarget

__all__ = ["check_writable", "open_writable"]


def check_writable(target: Target) -> None:
    """
    Refuse a target whose memory cannot be written.

    :raises UnsupportedError: If this kind of target cannot be written.
    """
    from kmemdump.targets.qmp import QmpTarget  # asyncio is loaded late.

    if not isinstance(target, (LiveTarget, QmpTarget)):
        raise UnsupportedError(
            f"{target.name}: its memory cannot be written, expected live or qmp:SOCKET"
        )


def open_writable(target: Target, ranges: Iterable[Range] = ()) -> MappedMemory:
    """
    Open a target's memory for a backend that keeps its list there.

    :param ranges: What will be written; on a live machine, only this is mapped.
    :return: To be closed before the target.
    :raises UnsupportedError: If this kind of target cannot be written.
    :raises TargetError: If it cannot be opened.
    """
    check_writable(target)
    if isinstance(target, LiveTarget):
        return open_reserved(ranges)
    memory = target.memory
    if isinstance(memory, ChangingMemory):
        memory = memory.current
    if not isinstance(memory, FileMemory):
        raise UnsupportedError(
            f"{target.name}: the VM's RAM is in several files, expected one"
        )
    return _map_ram(memory, target.name)


def _map_ram(memory: FileMemory, name: str) -> MappedMemory:
    try:
        fd = memory.reopen()
    except OSError as error:
        raise TargetError(
            f"{name}: the VM's RAM cannot be opened for writing: {error.strerror}"
        ) from error
    try:
        # A /proc/PID/mem has no size.
        if os.fstat(fd).st_size == 0:
            raise UnsupportedError(
                f"{name}: the VM's RAM is not in a file that can be shared\n"
                "start QEMU with -object memory-backend-file,share=on,mem-path=FILE,…"
            )
        return MappedMemory(fd, memory.extents, f"RAM of {name}")
    finally:
        os.close(fd)
