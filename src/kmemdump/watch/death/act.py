# SPDX-License-Identifier: GPL-2.0-or-later
"""What is done to a VM after the death of its kernel, and waiting until then."""

from __future__ import annotations

import time

from kmemdump.watch.end_causes import VmAfterDeath, WatchEnd
from kmemdump.watch.events import EventName
from kmemdump.watch.qmp_events import VmEventKind
from kmemdump.watch.reporter import Reporter
from kmemdump.watch.settings import VmAction
from kmemdump.watch.vm_control import VmControl

__all__ = ["act_on_vm", "wait_for_reset", "wait_paused"]

_POLL = 0.25
_RETRY = 1.0
_STATUS_INTERVAL = 2.0
"""Seconds between two questions whether a paused VM was continued."""


def act_on_vm(
    action: VmAction, control: VmControl, vm: VmAfterDeath, reporter: Reporter
) -> WatchEnd | None:
    """
    Pause, reset, end or continue a VM whose kernel died.

    :return: None if the same kernel may go on running.
    :raises StoppedError: If the watch should stop.
    """
    if vm is VmAfterDeath.ENDED:
        return WatchEnd()
    _wait_for_answer(control, reporter)
    if control.gone:
        return WatchEnd()
    if vm.boots and control.is_left_paused:
        text = "reset while it was paused: left so"
        return WatchEnd(text, boots_again=True, event=EventName.ACTED)
    if action is VmAction.PAUSE:  # The host wants it to boot.
        if vm is VmAfterDeath.RESET_BY_HOST:
            action = VmAction.CONTINUE
        elif vm is VmAfterDeath.WAITS_FOR_RESET:
            action = VmAction.RESET
    if action is not VmAction.CONTINUE and not control.can(action):
        text = f"let it go on: its monitor cannot be asked to {action} it"
        reporter.report(text, EventName.ACTED)
        action = VmAction.CONTINUE
    match action:
        case VmAction.PAUSE:
            control.stop()  # It did not answer when its kernel died, if it runs.
            return WatchEnd("left paused", event=EventName.ACTED)
        case VmAction.QUIT:
            if not control.quit():
                return WatchEnd()
            return WatchEnd("ended the VM", event=EventName.ACTED)
        case VmAction.RESET if not vm.boots:
            if not control.reset():
                return WatchEnd()
            return WatchEnd("reset the VM", boots_again=True, event=EventName.ACTED)
        case _:
            control.cont()
    if vm is VmAfterDeath.STAYS and control.can("events"):
        return wait_for_reset(control, reporter)
    # Without events, its memory shows when it boots.
    boots = vm.boots or vm is VmAfterDeath.STAYS
    return WatchEnd(boots_again=True) if boots else None


def _wait_for_answer(control: VmControl, reporter: Reporter) -> None:
    """Wait until the VM's monitor can be asked: libvirt's daemon may be away."""
    while not control.gone and control.status() is None:
        reporter.show_status("dead; waiting until its monitor answers")
        reporter.check_stopping()
        reporter.sleep(_RETRY)


def wait_for_reset(control: VmControl, reporter: Reporter) -> WatchEnd:
    """Wait until a VM that runs with a dead kernel is reset, or ends."""
    reporter.show_status("dead; waiting for its next boot")
    while not control.gone:
        reporter.check_stopping()
        event = control.next_event(_POLL)
        if event is not None and event.kind is VmEventKind.RESET:
            return WatchEnd("boots again", boots_again=True)
        if event is not None and event.kind is VmEventKind.SHUTDOWN:
            return WatchEnd("ended")
    return WatchEnd("QEMU ended")


def wait_paused(
    control: VmControl, reporter: Reporter, seconds: float
) -> WatchEnd | None:
    """
    Wait while a VM with a dead kernel is paused, or until QEMU ends.

    :param seconds: At most this long.
    :return: How it went on if somebody else let it run.
    :raises StoppedError: If the watch should stop.
    """
    # QEMU may not have answered at the first time, or refuse.
    control.stop()
    is_paused = control.status() not in (None, "running")
    deadline = time.monotonic() + seconds
    next_question = time.monotonic() + _STATUS_INTERVAL
    was_reset = False
    while (left := deadline - time.monotonic()) > 0:
        reporter.check_stopping()
        if control.gone:
            reporter.sleep(left)
            return None
        event = control.next_event(min(_POLL, left))
        was_reset |= event is not None and event.kind is VmEventKind.RESET
        if time.monotonic() < next_question:
            continue
        next_question = time.monotonic() + _STATUS_INTERVAL
        status = control.status()
        if status == "running" and is_paused:
            reporter.report("somebody else let it run")
            if was_reset:
                return WatchEnd(boots_again=True)
            return wait_for_reset(control, reporter)
        if status == "running":
            control.stop()
        is_paused = is_paused or status not in (None, "running")
    return None
