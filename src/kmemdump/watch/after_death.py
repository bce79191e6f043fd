# SPDX-License-Identifier: GPL-2.0-or-later
"""What is done with a VM after its kernel died, and what is watched next."""

from __future__ import annotations

from enum import Enum

from kmemdump.watch.end_causes import VmAfterDeath, WatchEnd
from kmemdump.watch.qmp_events import VmEventKind
from kmemdump.watch.reporter import Reporter
from kmemdump.watch.settings import VmAction
from kmemdump.watch.vm_control import VmControl

__all__ = ["NextStep", "act_on_vm", "wait_for_reset"]

_POLL = 0.25


class NextStep(Enum):
    """What to do after a core image was written."""

    END = "stop watching the VM"
    WATCH = "watch the same kernel"
    WAIT = "wait until the VM with the dead kernel is reset"
    ATTACH = "attach to the kernel that boots"


def act_on_vm(
    action: VmAction, control: VmControl, vm: VmAfterDeath, reporter: Reporter
) -> NextStep:
    """Pause, reset, end or continue a VM whose kernel died."""
    if vm is VmAfterDeath.ENDED or control.gone:
        return NextStep.END
    if vm is VmAfterDeath.RESET_BY_HOST and action is VmAction.PAUSE:
        action = VmAction.CONTINUE  # The host wants it to boot.
    match action:
        case VmAction.PAUSE:
            reporter.report("left paused")
            return NextStep.END
        case VmAction.QUIT:
            control.quit()
            reporter.report("ended the VM")
            return NextStep.END
        case VmAction.RESET if not _boots(vm):
            if not control.reset():
                return NextStep.END
            reporter.report("reset the VM")
            return NextStep.ATTACH
        case _:
            control.cont()
    if vm is VmAfterDeath.STAYS:
        return NextStep.WAIT
    return NextStep.ATTACH if _boots(vm) else NextStep.WATCH


def _boots(vm: VmAfterDeath) -> bool:
    return vm in (VmAfterDeath.RESET_BY_GUEST, VmAfterDeath.RESET_BY_HOST)


def wait_for_reset(control: VmControl, reporter: Reporter) -> WatchEnd:
    """
    Wait until a VM that runs with a dead kernel is reset, or ends.

    :raises StoppedError: If the watch should stop.
    """
    reporter.show_status("dead; waiting for its next boot")
    while not control.gone:
        reporter.check_stopping()
        event = control.next_event(_POLL)
        if event is not None and event.kind is VmEventKind.RESET:
            return WatchEnd("boots again", boots_again=True)
        if event is not None and event.kind is VmEventKind.SHUTDOWN:
            return WatchEnd("ended")
    return WatchEnd("QEMU ended")
