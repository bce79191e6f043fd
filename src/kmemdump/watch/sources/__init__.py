# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the VMs of a host are found: a source yields those that there are now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kmemdump.targets.vm import VmTarget

__all__ = ["Source", "VmAddress"]


class VmAddress(Protocol):
    """
    One life of a VM, and how to reach it.

    It can be pickled: another process connects. Two addresses are equal if they are
    the same life of the same VM.
    """

    @property
    def name(self) -> str:
        """
        The VM's name, for messages and the names of files.

        It stays the same while the VM comes and goes, and no other VM has it.
        """

    @property
    def life(self) -> str:
        """Differs each time that QEMU was started."""

    @property
    def spec(self) -> str:
        """The target, as other verbs name it: ``qmp:SOCKET``, ``pid:PID``."""

    def with_name(self, name: str) -> VmAddress:
        """Return the same with another name."""

    def obstacle(self) -> str | None:
        """
        Return why connecting cannot work now, for a person; None if it may.

        To be asked before a process is started that connects. Does not block.
        """

    def connect(self, timeout: float) -> VmTarget:
        """
        Connect to the VM. May block: not for the process that looks after all VMs.

        :param timeout: Seconds that each answer may take.
        :raises TargetError: If that is impossible now; it may be possible later.
        """


class Source(Protocol):
    """
    VMs of a host, which come and go.

    Its methods are called about twice a second by the process that looks after all
    VMs: none may block, and none fails.
    """

    def vms(self) -> Sequence[VmAddress]:
        """
        Return the VMs that there are now, as far as is known.

        A VM that ended is missing, or is there with another life. While a source has
        lost contact (libvirt restarts), its VMs stay as they were.
        """

    @property
    def settled(self) -> bool:
        """Whether :meth:`vms` knows by now which VMs there are."""

    def messages(self) -> Sequence[str]:
        """Return what a person should know and was not returned before."""

    def close(self) -> None:
        """Release connections and processes."""
