# SPDX-License-Identifier: GPL-2.0-or-later
"""
Demonstrations in a VM: a kernel is marked, dies, and its core image answers.

With simulated firmware, the steps after the death need only the files that the
firmware left.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from kmemdump.collect.write import write_collected
from kmemdump.coreimage import Death
from kmemdump.errors import UnsupportedError
from kmemdump.files import PartialFile
from kmemdump.firmware_dumps.folder import collect_folder
from kmemdump.firmware_dumps.target import DumpTarget
from kmemdump.installing import require_programs
from kmemdump.lab.crashes import CrashType, crash_guest
from kmemdump.lab.dump_folder import check_dump_folder, new_dump_folder
from kmemdump.lab.firmware import Firmware
from kmemdump.lab.kernel_package import KernelPackage
from kmemdump.lab.machine import Machine
from kmemdump.lab.packages import PackageCache
from kmemdump.lab.reserved import scratch_range, smem_range
from kmemdump.lab.setup import Setup
from kmemdump.marking.firmware_table import TableOptions
from kmemdump.marking.registration import mark_firmware
from kmemdump.marking.selection import select
from kmemdump.opening import open_target
from kmemdump.targets import Target
from kmemdump.text import format_size
from kmemdump.watch.dump import write_dump
from kmemdump.watch.vm_marks import VmMarks

__all__ = ["DemoResult", "run_demo", "run_firmware_demo", "whose"]


@dataclass(frozen=True, slots=True)
class DemoResult:
    """The core image of a demonstration."""

    core: Path
    complete: bool
    """Whether it holds all memory that was marked."""
    seconds: float
    """
    Seconds from the death, or from the firmware's files, to a core image; with a crash
    kernel, until that has written it.
    """
    finished: float | None = None
    """Seconds from the death to the end of the second look, if there was one."""
    dump: Path | None = None
    """Folder with the files that firmware left."""
    copying: float | None = None
    """Seconds from a crash kernel's first user space to its image on the disk."""


def run_demo(
    folder: Path,
    cache: PackageCache,
    say: Callable[[str], None],
    kernel: KernelPackage,
) -> DemoResult:
    """
    Boot a kernel, mark it, make it panic, write its core image.

    :param folder: Where ``core.elf`` is written.
    :param say: Called with a line about each step.
    :raises KmemdumpError: If it cannot be done on this machine.
    """
    require_programs(kernel.architecture.qemu, "setpriv")
    setup = Setup(kernel)
    say(
        f"booting {whose(kernel)}{kernel.release} in QEMU: {setup.cpus} CPUs, "
        f"{setup.memory} MiB, {setup.tasks} sleeping tasks"
    )
    with (
        Machine(cache, setup) as machine,
        open_target(f"qmp:{machine.qmp}") as target,
    ):
        say("marking the healthy kernel from outside, without debug info")
        marks = _mark(target)
        say(_describe(marks))

        say("killing it: echo c > /proc/sysrq-trigger")
        crash_guest(machine, CrashType.PANIC)

        start = time.monotonic()
        machine.pause()
        death = Death("killed by the demonstration")
        dump = write_dump(marks, folder / "core.elf", death)
    named, finished = dump.named - start, dump.finished - start
    say(f"dead; {dump.path}: {format_size(dump.size)}, {named:.2f} s after the death")
    say(f"replaced {finished:.2f} s after the death, with what a second look added")
    return DemoResult(dump.path, not dump.missing, named, finished)


def whose(kernel: KernelPackage) -> str:
    """Return the beginning of a kernel's name, for a step."""
    return "Debian's " if kernel.image is None else ""


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


def run_firmware_demo(
    folder: Path,
    cache: PackageCache,
    say: Callable[[str], None],
    kernel: KernelPackage,
) -> DemoResult:
    """
    Boot a kernel, register it with its firmware, make it panic, collect the dump.

    :param folder: Where ``dump`` (a folder), ``rawdump.img`` and ``core.elf`` are
        written.
    :param say: Called with a line about each step.
    :raises KmemdumpError: If it cannot be done on this machine.
    :raises OutputError: If ``dump`` is there, and no demonstration made it.
    """
    dump, image, core = (folder / name for name in ("dump", "rawdump.img", "core.elf"))
    architecture = kernel.architecture
    require_programs(architecture.qemu, "setpriv")
    check_dump_folder(dump)
    PartialFile(image).discard()  # What is wrong there shows now.
    setup = Setup(kernel, firmware=True)
    smem, scratch = smem_range(architecture), scratch_range(architecture)
    say(
        f"booting {whose(kernel)}{kernel.release} in QEMU: {setup.cpus} CPUs, "
        f"{setup.memory} MiB, SMEM at {smem.start:#x}"
    )
    with Machine(cache, setup) as machine:
        table = TableOptions(smem=smem, scratch=scratch, no_encryption=True)
        with open_target(f"qmp:{machine.qmp}") as target:
            say("registering its regions in the minidump table, from outside")
            with mark_firmware(target, table) as registration:
                plan = registration.last.plan
            say(
                f"{len(plan.regions)} regions of the {plan.capacity} that there is "
                f"room for, {format_size(plan.size)}; from now on nothing watches it"
            )
        say("killing it: echo c > /proc/sysrq-trigger")
        crash_guest(machine, CrashType.PANIC)
        machine.pause()
        with closing(Firmware(machine)) as firmware:
            with new_dump_folder(dump) as partial:
                firmware.leave_folder(partial)
            firmware.leave_image(image)
        say(
            f"dead; its firmware left {len(firmware.names)} files in {dump}, and the "
            f"same in {image}"
        )
    start = time.monotonic()
    with DumpTarget(collect_folder(dump)) as collected:
        missing = write_collected(core, collected)
    seconds = time.monotonic() - start
    size = format_size(core.stat().st_size)
    say(f"collected in {seconds:.2f} s: {core}, {size}")
    return DemoResult(core, not missing, seconds, dump=dump)
