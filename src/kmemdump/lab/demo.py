# SPDX-License-Identifier: GPL-2.0-or-later
"""A demonstration in a VM: a kernel is marked, dies, and its core image answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kmemdump.errors import UnsupportedError
from kmemdump.lab.architectures import X86_64, Architecture
from kmemdump.lab.crashes import CrashType, crash_guest
from kmemdump.lab.machine import Machine
from kmemdump.lab.packages import PackageCache
from kmemdump.lab.setup import Setup
from kmemdump.marking.selection import select
from kmemdump.opening import open_target
from kmemdump.targets import Target
from kmemdump.text import format_size
from kmemdump.watch.dump import write_dump
from kmemdump.watch.vm_marks import VmMarks

__all__ = ["DemoResult", "run_demo"]


@dataclass(frozen=True, slots=True)
class DemoResult:
    """The core image of a demonstration."""

    core: Path
    complete: bool
    """Whether all memory that was marked is in it."""
    seconds: float
    """From the death, or from the files that firmware left, to a core image."""
    finished: float | None = None
    """Seconds from the death to the end of the second look, if there was one."""
    dump: Path | None = None
    """Folder with the files that firmware left."""


def run_demo(
    folder: Path,
    cache: PackageCache,
    say: Callable[[str], None],
    *,
    series: str = "6.12",
    architecture: Architecture = X86_64,
    cpus: int = 2,
    memory: int = 1024,
) -> DemoResult:
    """
    Boot a kernel, mark it, make it panic, write its core image.

    :param folder: Where ``core.elf`` is written.
    :param say: Called with a line about each step.
    :param series: The kernel, ``6.1`` or ``6.12``.
    :param memory: The VM's memory in MiB.
    :raises KmemdumpError: If it cannot be done on this machine.
    """
    kernel = cache.kernel(series, architecture)
    setup = Setup(kernel, cpus=cpus, memory=memory)
    say(
        f"booting Debian's {kernel.release} in QEMU: {cpus} CPUs, {memory} MiB, "
        f"{setup.tasks} sleeping tasks"
    )
    with Machine(cache, setup) as machine:
        target = open_target(f"qmp:{machine.qmp}")
        try:
            say("marking the healthy kernel from outside, without debug info")
            marks = _mark(target)
            say(_describe(marks))

            say("killing it: echo c > /proc/sysrq-trigger")
            crash_guest(machine, CrashType.PANIC)

            start = time.monotonic()
            machine.pause()
            dump = write_dump(marks, folder / "core.elf", "killed by the demonstration")
        finally:
            target.close()
    named, finished = dump.named - start, dump.finished - start
    say(f"dead; {dump.path}: {format_size(dump.size)}, {named:.2f} s after the death")
    say(f"replaced {finished:.2f} s after the death, with what a second look added")
    return DemoResult(dump.path, not dump.missing, named, finished)


def _mark(target: Target) -> VmMarks:
    try:
        return VmMarks(target, select())
    except UnsupportedError as error:
        raise UnsupportedError(
            f"{error}\nthe demonstration uses no debug info: choose another kernel"
        ) from error


def _describe(marks: VmMarks) -> str:
    areas, regions = marks.capture.marking.areas, list(marks.registry)
    seconds = sum(area.seconds for area in areas)
    size = sum(region.size for region in regions)
    return (
        f"marked {len(areas)} areas in {seconds:.1f} s: "
        f"{len(regions)} regions, {format_size(size)}"
    )
