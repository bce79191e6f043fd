# SPDX-License-Identifier: GPL-2.0-or-later
"""The targets: this machine, a VM, or a file with a kernel's memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self, runtime_checkable

from kmemdump.memory.physical import Memory
from kmemdump.memory.ranges import Alias
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["Closing", "NamingTarget", "Target"]


class Target(Protocol):
    """
    A kernel's memory, with its VMCOREINFO and registers.

    A ``with`` statement closes it.
    """

    @property
    def name(self) -> str:
        """As a user would name it."""

    @property
    def machine(self) -> int:
        """Architecture: an ELF ``e_machine``."""

    @property
    def memory(self) -> Memory:
        """Its physical memory."""

    def vmcoreinfo(self) -> VmcoreInfo:
        """
        Return the VMCOREINFO of the kernel.

        :raises KmemdumpError: If it has none.
        """

    def registers(self) -> list[bytes]:
        """
        Return the NT_PRSTATUS descriptor of each CPU, in the order of CPUs.

        :return: Empty if they are not known.
        """

    def close(self) -> None:
        """Release files and connections. Does not fail."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Closing:
    """Lets a ``with`` statement close a class that has ``close()``."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@runtime_checkable
class NamingTarget(Target, Protocol):
    """A target that knows virtual addresses of its memory without a page table."""

    @property
    def aliases(self) -> Sequence[Alias]:
        """Physical memory and its virtual addresses."""
