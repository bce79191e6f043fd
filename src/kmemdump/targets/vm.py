# SPDX-License-Identifier: GPL-2.0-or-later
"""A target that is a VM on this host, which runs and can be paused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from kmemdump.targets import Target
from kmemdump.targets.qmp_channel import QmpChannel

__all__ = ["VmTarget"]


@runtime_checkable
class VmTarget(Target, Protocol):
    """A VM: its memory, and its monitor."""

    @property
    def client(self) -> QmpChannel:
        """Its monitor; one without QMP answers to few commands."""

    @property
    def abilities(self) -> frozenset[str]:
        """
        What its monitor does when asked: ``pause`` that lasts, ``reset``, ``quit``; and
        ``events``, by which it tells of resets.
        """

    def status(self) -> str:
        """
        Return the run state as QEMU names it: ``running``, ``paused``, …

        :raises TargetError: If the monitor does not answer.
        """

    def stop(self) -> None:
        """
        Pause the VM.

        :raises TargetError: If that is impossible.
        """

    def cont(self) -> None:
        """
        Let the VM run.

        :raises TargetError: If that is impossible.
        """

    def forget(self) -> None:
        """Forget the kernel, since the VM may boot another one."""

    def note_event(self, event: Mapping[str, object]) -> None:
        """Take an event of the monitor: the map of the memory may have changed."""

    def follow_memory(self) -> list[str]:
        """
        Look at the memory's map again if it may have changed, and return what is new.

        :return: Lines for a person, each returned once.
        """
