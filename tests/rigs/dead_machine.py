# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine whose kernel has died, shared by many tests."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kmemdump.lab import Machine, crash_guest
from kmemdump.lab.crashes import SPINNING
from kmemdump.lab.machine_folder import dig_holes
from rigs.programs import run_kmemdump
from rigs.scenarios import Scenario

__all__ = ["DeadMachine", "without_modules"]


@dataclass
class DeadMachine:
    """A machine whose kernel has died, paused."""

    scenario: Scenario
    machine: Machine
    scratch: Path
    """A folder for files of any size, gone with the machine."""
    find_vmlinux: Callable[..., Path]

    @cached_property
    def vmlinux(self) -> Path:
        """The kernel with debug information."""
        return self.find_vmlinux(self.scenario.kernel, self.scenario.architecture)

    @property
    def spinning(self) -> str:
        """The function in which a CPU spins, if that is how the machine died."""
        return "lab_spin" if self.machine.setup.module is not None else SPINNING

    @property
    def options(self) -> tuple[str, ...]:
        """Options that every verb needs for this kernel."""
        return () if self.scenario.tells else ("--vmlinux", str(self.vmlinux))

    @cached_property
    def full_dump(self) -> Path:
        """The machine's whole memory at death, as QEMU writes it."""
        path = self.scratch / "full.elf"
        self.machine.full_dump(path)
        dig_holes(self.machine.folder / "ram")  # QEMU's reading has filled them.
        return path


def without_modules(dead: DeadMachine, machine: Machine) -> tuple[Path, Path]:
    """Return whole dump and core image of the same death, without a module loaded."""
    for name in machine.run("cat /proc/modules").splitlines():  # The newest first.
        machine.run(f"busybox rmmod {name.split()[0]}")
    crash_guest(machine, dead.scenario.death)
    machine.pause()
    full, core = dead.scratch / "full-alone.elf", dead.scratch / "core-alone.elf"
    machine.full_dump(full)
    captured = run_kmemdump("capture", f"qmp:{machine.qmp}", "-o", core, *dead.options)
    assert captured.returncode == 0, captured.stderr
    return full, core
