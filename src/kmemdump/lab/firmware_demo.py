# SPDX-License-Identifier: GPL-2.0-or-later
"""
The whole story with firmware: a kernel is marked in a table, dies, is dumped.

What follows the death needs nothing of the machine: it is what somebody does on a desk
with what a device left.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from kmemdump.collect.write import write_collected
from kmemdump.firmware_dumps.folder import collect_folder
from kmemdump.firmware_dumps.target import DumpTarget
from kmemdump.lab.architectures import AARCH64, Architecture
from kmemdump.lab.crashes import CrashType, crash_guest, kernel_arguments
from kmemdump.lab.firmware import Firmware
from kmemdump.lab.machine import Machine
from kmemdump.lab.packages import PackageCache
from kmemdump.lab.reserved import scratch_range, smem_range
from kmemdump.lab.setup import Setup
from kmemdump.marking.firmware import mark_firmware
from kmemdump.marking.firmware_table import TableOptions
from kmemdump.opening import open_target
from kmemdump.text import format_size

__all__ = ["FirmwareStory", "tell_of_firmware"]


@dataclass(frozen=True, slots=True)
class FirmwareStory:
    """How it went."""

    core: Path
    seconds: float
    """From the files to the core image."""
    missing: int
    """Bytes that should be in it and are not."""


def tell_of_firmware(
    folder: Path,
    cache: PackageCache,
    say: Callable[[str], None],
    *,
    series: str = "6.12",
    architecture: Architecture = AARCH64,
    cpus: int = 2,
    memory: int = 1024,
) -> FirmwareStory:
    """
    Boot a kernel, register it with its firmware, make it panic, collect the dump.

    :param folder: Where ``dump`` (a folder), ``rawdump.img`` and ``core.elf`` are
        written.
    :param say: Called with what happens, a line each.
    :raises KmemdumpError: If it cannot be done on this machine.
    """
    dump, image, core = (folder / name for name in ("dump", "rawdump.img", "core.elf"))
    shutil.rmtree(dump, ignore_errors=True)
    kernel = cache.kernel(series, architecture)
    arguments = kernel_arguments(CrashType.PANIC, architecture)
    setup = Setup(kernel, cpus=cpus, memory=memory, arguments=arguments, firmware=True)
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
                planned = registration.last.plan
            say(
                f"{len(planned.regions)} regions of the "
                f"{planned.capacity} that there is room for, "
                f"{format_size(planned.size)}; now nobody looks at it any more"
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
    return FirmwareStory(core, seconds, sum(item.size for item in missing))
