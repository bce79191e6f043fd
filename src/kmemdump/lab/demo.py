# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole story in a VM: a kernel is marked, dies, and answers from its core."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kmemdump.errors import UnsupportedError
from kmemdump.lab.architectures import X86_64, Architecture
from kmemdump.lab.crashes import CrashType, crash_guest, kernel_arguments
from kmemdump.lab.machine import Machine
from kmemdump.lab.packages import PackageCache
from kmemdump.lab.setup import Setup
from kmemdump.marking.capture import Capture
from kmemdump.marking.registry import Registry
from kmemdump.marking.selection import Selection, select
from kmemdump.opening import open_target
from kmemdump.targets import Target
from kmemdump.text import format_size
from kmemdump.watch.vm_marks import Keeper, Saved

__all__ = ["Story", "tell"]


@dataclass(frozen=True, slots=True)
class Story:
    """How it went."""

    saved: Saved
    marked: Capture
    """The healthy kernel."""
    named: float
    """Seconds from the death to a core image of what was marked beforehand."""
    finished: float
    """Seconds until the dead kernel had been looked at again, and it was replaced."""


def tell(
    folder: Path,
    cache: PackageCache,
    say: Callable[[str], None],
    *,
    series: str = "6.12",
    architecture: Architecture = X86_64,
    cpus: int = 2,
    memory: int = 1024,
) -> Story:
    """
    Boot a kernel, mark it, make it panic, write its core image.

    :param folder: Where ``core.elf`` is written.
    :param say: Called with what happens, a line each.
    :param series: The kernel, ``6.1`` or ``6.12``.
    :param memory: The VM's memory in MiB.
    :raises KmemdumpError: If it cannot be done on this machine.
    """
    selection = select()
    kernel = cache.kernel(series, architecture)
    arguments = kernel_arguments(CrashType.PANIC, architecture)
    setup = Setup(kernel, cpus=cpus, memory=memory, arguments=arguments)
    say(
        f"booting Debian's {kernel.release} in QEMU: {cpus} CPUs, {memory} MiB, "
        f"{setup.tasks} sleeping tasks"
    )
    with Machine(cache, setup) as machine:
        target = open_target(f"qmp:{machine.qmp}")
        try:
            say("marking the healthy kernel from outside, without debug info")
            keeper = _keep(target, selection)
            marked = keeper.capture
            say(_describe(keeper.registry, marked))

            say("killing it: echo c > /proc/sysrq-trigger")
            crash_guest(machine, CrashType.PANIC)

            start = time.monotonic()
            machine.pause()
            saved = keeper.save(folder / "core.elf", "killed by the demonstration")
        finally:
            target.close()
    return Story(saved, marked, saved.named - start, saved.finished - start)


def _keep(target: Target, selection: Selection) -> Keeper:
    try:
        return Keeper(target, selection)
    except UnsupportedError as error:
        raise UnsupportedError(
            f"{error}\nthe demonstration does without: choose another kernel for it"
        ) from error


def _describe(registry: Registry, marked: Capture) -> str:
    count = sum(region.size for region in registry)
    spent = sum(area.seconds for area in marked.marking.areas)
    return (
        f"marked {len(marked.marking.areas)} areas in {spent:.1f} s: "
        f"{len(registry)} regions, {format_size(count)}"
    )
