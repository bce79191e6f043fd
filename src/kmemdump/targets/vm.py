# SPDX-License-Identifier: GPL-2.0-or-later
"""A target that is a VM on this host, which runs and can be paused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from kmemdump.targets import Target
from kmemdump.targets.qmp_channel import LostError, QmpChannel, QmpTimeoutError

__all__ = ["VmTarget", "is_paused", "let_run", "paused"]


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


@contextmanager
def paused(target: VmTarget) -> Iterator[None]:
    """
    Pause a VM, if it runs, for a ``with`` statement, however that ends.

    :raises TargetError: If its monitor refuses, does not answer or ends.
    """
    if target.status() != "running":  # Somebody else has paused it.
        yield
        return
    try:
        target.stop()
        yield
    finally:
        let_run(target)  # Also if it stopped without an answer.


def let_run(target: VmTarget) -> None:
    """
    Let a VM run that kmemdump has paused, unless somebody does something else with it.

    If its monitor cannot be reached, this waits until it can: the VM would stay paused.

    :raises TargetError: If its monitor refuses, does not answer or ends.
    """
    try:
        stands = is_paused(target.client.when_reached(target.status))
    except LostError:
        raise
    except QmpTimeoutError:
        stands = True  # QEMU will obey in the order in which it is asked.
    if stands:
        target.cont()


def is_paused(status: str) -> bool:
    """
    Return whether a VM that was paused is so still.

    A guest that resets itself in the very moment is in ``prelaunch``: see
    main_loop_should_exit() in system/runstate.c of QEMU.
    """
    return status in ("paused", "prelaunch")
