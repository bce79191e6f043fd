# SPDX-License-Identifier: GPL-2.0-or-later
"""
A demonstration with simulated firmware: a kernel is registered, dies, is dumped.

What follows the death needs nothing of the machine: only the files that firmware left.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from kmemdump.collect.write import write_collected
from kmemdump.firmware_dumps.folder import collect_folder
from kmemdump.firmware_dumps.target import DumpTarget
from kmemdump.lab.architectures import AARCH64, Architecture
from kmemdump.lab.crashes import CrashType, crash_guest
from kmemdump.lab.demo import DemoResult
from kmemdump.lab.firmware import Firmware
from kmemdump.lab.machine import Machine
from kmemdump.lab.packages import PackageCache
from kmemdump.lab.reserved import scratch_range, smem_range
from kmemdump.lab.setup import Setup
from kmemdump.marking.firmware_table import TableOptions
from kmemdump.marking.registration import mark_firmware
from kmemdump.opening import open_target
from kmemdump.text import format_size

__all__ = ["run_firmware_demo"]


def run_firmware_demo(
    folder: Path,
    cache: PackageCache,
    say: Callable[[str], None],
    *,
    series: str = "6.12",
    architecture: Architecture = AARCH64,
    cpus: int = 2,
    memory: int = 1024,
) -> DemoResult:
    """
    Boot a kernel, register it with its firmware, make it panic, collect the dump.

    :param folder: Where ``dump`` (a folder), ``rawdump.img`` and ``core.elf`` are
        written.
    :param say: Called with a line about each step.
    :raises KmemdumpError: If it cannot be done on this machine.
    """
    dump, image, core = (folder / name for name in ("dump", "rawdump.img", "core.elf"))
    shutil.rmtree(dump, ignore_errors=True)
    kernel = cache.kernel(series, architecture)
    setup = Setup(kernel, cpus=cpus, memory=memory, firmware=True)
    smem, scratch = smem_range(architecture), scratch_range(architecture)
    say(
        f"booting Debian's {kernel.release} in QEMU: {cpus} CPUs, {memory} MiB, "
        f"SMEM at {smem.start:#x}"
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
            firmware.leave_folder(dump)
            firmware.leave_image(image)
        say(
            f"dead; its firmware left {len(firmware.names)} files in {dump}, and the "
            f"same in {image}"
        )
    start = time.monotonic()
    with closing(DumpTarget(collect_folder(dump))) as collected:
        missing = write_collected(core, collected)
    seconds = time.monotonic() - start
    size = format_size(core.stat().st_size)
    say(f"collected in {seconds:.2f} s: {core}, {size}")
    return DemoResult(core, not missing, seconds, dump=dump)
