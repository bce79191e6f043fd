# SPDX-License-Identifier: GPL-2.0-or-later
"""Waiting for a VM's kernel, to mark it."""

from __future__ import annotations

import time
from collections.abc import Callable

from kmemdump.errors import FormatError, KmemdumpError, TargetError, UsageError
from kmemdump.marking.selection import Selection
from kmemdump.text import format_size
from kmemdump.watch.liveness import ticking
from kmemdump.watch.reporter import Voice, first_line
from kmemdump.watch.vm_control import Host
from kmemdump.watch.vm_marks import Keeper

__all__ = ["Arrival"]

_RETRY = (1.0, 2.0, 3.0, 5.0)
"""Seconds between attempts to attach."""
_RELUCTANT = 60.0
"""Seconds after which it is said again why there is no kernel."""
_TICK_PATIENCE = 5.0
"""Seconds in which the clock of a kernel that runs must move."""
_POLL = 0.25


class Arrival:
    """
    Waits for the kernels of one VM.

    :param selection: What to mark.
    """

    def __init__(self, host: Host, selection: Selection, voice: Voice) -> None:
        self._host = host
        self._selection = selection
        self._voice = voice

    def wait(self, before: Keeper | None) -> Keeper | None:
        """
        Wait for a kernel, and mark it.

        :param before: The kernel that this one follows, which may still be in memory.
        :return: None if the VM ends first.
        :raises UsageError: If what shall be marked makes no sense.
        :raises FormatError: If the vmlinux is of no use.
        :raises StoppedError: If somebody wants us to end.
        """
        host = self._host
        attempt = 0
        started = time.monotonic()
        told = 0
        while not host.gone:
            self._voice.show("waiting for a kernel")
            host.target.forget()
            host.forget_notices()
            try:
                keeper = self._attach(before)
            except UsageError:
                raise
            except KmemdumpError as error:
                vmlinux = self._selection.vmlinux
                if isinstance(error, FormatError) and error.where == str(vmlinux):
                    raise  # It will be the wrong one for ever.
                if told == 0:
                    self._voice.say(f"waiting for a kernel ({first_line(error)})")
                    told = 1
                elif told == 1 and time.monotonic() - started > _RELUCTANT:
                    self._voice.say(f"still waiting for a kernel: {first_line(error)}")
                    told = 2
            else:
                host.booted()
                self._tell_marks(keeper)
                return keeper
            self._voice.sleep(_RETRY[min(attempt, len(_RETRY) - 1)])
            attempt += 1
        self._voice.complain("QEMU ended before there was a kernel to mark")
        return None

    def _attach(self, before: Keeper | None) -> Keeper:
        host = self._host
        status = host.target.status()
        if status in ("prelaunch", "inmigrate", "preconfig"):
            raise TargetError(f"the VM is not started (status {status})")
        memory = host.target.memory
        if before is not None and host.target.vmcoreinfo() == before.info:
            # Very likely what the reset left in memory.
            self._wait_for_ticks(ticking(before.vitals, memory))
        keeper = Keeper(host.target, self._selection)
        if before is not None:
            self._wait_for_ticks(ticking(keeper.vitals, memory))
        return keeper

    def _wait_for_ticks(self, has_ticked: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _TICK_PATIENCE
        while not has_ticked():
            if time.monotonic() > deadline:
                raise TargetError("the kernel in memory is that of before the reset")
            self._voice.sleep(_POLL)

    def _tell_marks(self, keeper: Keeper) -> None:
        marks = keeper.capture.marking
        text = (
            f"marked {keeper.info.osrelease}: {len(marks.areas)} areas, "
            f"{len(keeper.registry)} regions, {format_size(keeper.size)}"
        )
        if keeper.packed_size:
            text += f" and {format_size(keeper.packed_size)} to be packed"
        incomplete = [area for area in marks.areas if area.reason]
        if incomplete:
            text += f"; incomplete: {', '.join(area.name for area in incomplete)}"
        self._voice.say(text)
        for area in incomplete:
            self._voice.show(f"area {area.name}: {area.reason}")
        refused = keeper.registry.not_held()
        if refused:
            self._voice.say(f"{len(refused)} regions are not held: {refused[0].reason}")
        if keeper.vitals.blind:
            self._voice.say(
                f"cannot see of this kernel: {', '.join(keeper.vitals.blind)}"
            )
        self._voice.show("watching")
