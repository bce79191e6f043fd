# SPDX-License-Identifier: GPL-2.0-or-later
"""The status of watches, for people."""

from __future__ import annotations

from collections.abc import Iterator

from kmemdump.text import format_duration, format_size
from kmemdump.watch.control.status import VmRecord, WatchStatus

__all__ = ["vm_is_ill", "watch_lines"]


def vm_is_ill(vm: VmRecord, now: float) -> bool:
    """Return whether a death of a VM now might leave less than was asked for."""
    return vm.state != "watched" or vm.is_late(now)


def watch_lines(watch: WatchStatus, now: float) -> Iterator[str]:
    """Yield lines about a watch and its VMs."""
    since = format_duration(max(now - watch.started, 0))
    many = len(watch.vms)
    yield (
        f"watch of {many} VM{'' if many == 1 else 's'}: process {watch.pid}, since "
        f"{since}; core images in {watch.folder}"
    )
    for vm in watch.vms:
        yield from _vm_lines(vm, now)


def _vm_lines(vm: VmRecord, now: float) -> Iterator[str]:
    kernel = f", kernel {vm.release}" if vm.release else ""
    yield f"{vm.vm}: {vm.state}{kernel}; {vm.address}"
    if vm.marked is not None:
        yield (
            f"  holds   {vm.regions} regions, {format_size(vm.size)}, looked at "
            f"{format_duration(max(now - vm.marked, 0))} ago in "
            f"{vm.refresh_seconds:.2f} s, every {format_duration(vm.interval)}"
        )
    if vm.pid is not None:
        yield (
            f"  costs   {format_size(vm.memory)} of memory, {vm.cpu_seconds:.1f} s of "
            f"CPU time; process {vm.pid}"
        )
    if vm.deaths or vm.not_written:
        kinds = ", ".join(f"{count} {kind}" for kind, count in vm.deaths.items())
        last = f"; the last is {vm.last_core}" if vm.last_core else ""
        yield f"  deaths  {kinds or 'none'}, {vm.cores} core images{last}"
    if vm.not_written:
        yield f"  lost    {vm.not_written} without a core image"
    if vm.worker_deaths:
        yield f"  worker  died {vm.worker_deaths} times"
    if vm.error and vm.error_time is not None:
        age = format_duration(max(now - vm.error_time, 0))
        yield f"  error   {age} ago: {vm.error}"
