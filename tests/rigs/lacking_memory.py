# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine's memory that lacks blocks."""

from collections.abc import Collection, Sequence

from kmemdump.errors import NotCapturedError
from kmemdump.formats.elf import NT_PRSTATUS, Note
from kmemdump.kernel.attach import Kernel, OwnDebugInfo, attach
from kmemdump.memory.physical import Memory
from kmemdump.memory.ranges import Range
from kmemdump.memory.spans import BLOCK_SIZE
from kmemdump.targets import Target
from kmemdump.targets.file import FileTarget

__all__ = ["attach_without"]


class _LackingMemory:
    def __init__(self, memory: Memory, blocks: Collection[int]) -> None:
        self._memory = memory
        self._blocks = blocks

    @property
    def ranges(self) -> Sequence[Range]:
        return self._memory.ranges

    def read(self, address: int, size: int) -> bytes:
        for block in range(
            address // BLOCK_SIZE, (address + size - 1) // BLOCK_SIZE + 1
        ):
            if block in self._blocks:
                raise NotCapturedError(f"{block * BLOCK_SIZE:#x} was taken out")
        return self._memory.read(address, size)

    def close(self) -> None:
        """Leave it open: the target closes it."""


def attach_without(
    target: Target, blocks: Collection[int], known: OwnDebugInfo | None = None
) -> Kernel:
    """
    Attach to the kernel of a dead machine's memory without some blocks.

    :param blocks: Physical addresses in units of the recorder's blocks.
    :param known: The kernel's debug info, which is read from all memory otherwise.
    """
    notes = [Note("CORE", NT_PRSTATUS, status) for status in target.registers()]
    memory = _LackingMemory(target.memory, blocks)
    info = target.vmcoreinfo()
    lacking = FileTarget("the rest", target.machine, memory, notes, info)
    return attach(lacking, known=known or attach(target).own_debug_info)
