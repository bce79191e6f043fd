# SPDX-License-Identifier: GPL-2.0-or-later
"""
A demonstration in which the host does not read the VM's memory.

As on a server, all is done inside: a crash kernel is loaded, the kernel is marked and
dies, its crash kernel copies what was marked and reboots, the next boot collects it.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from kmemdump.crash_kernel.initramfs import pack_crash_initramfs
from kmemdump.crash_kernel.installation import ARGUMENTS, prepare_partition
from kmemdump.crash_kernel.settings import SETTINGS, CopierSettings
from kmemdump.errors import ExitCode, TargetError
from kmemdump.files import PartialFile
from kmemdump.installing import require_programs
from kmemdump.lab.copier import build_copier
from kmemdump.lab.crashes import CrashType, trigger_crash
from kmemdump.lab.demo import DemoResult, whose
from kmemdump.lab.guest_python import python_image
from kmemdump.lab.kernel_package import KernelPackage
from kmemdump.lab.kexec import kexec_command, kexec_files
from kmemdump.lab.machine import Machine
from kmemdump.lab.packages import PackageCache
from kmemdump.lab.setup import Setup
from kmemdump.text import format_size

__all__ = ["CRASH_KERNEL", "fetch_core", "run_crash_kernel_demo", "wait_for_copy"]

CRASH_KERNEL = 128
"""MiB that are reserved for the crash kernel, as by Debian's kdump-tools."""
_PARTITION = "/dev/vdc"
"""The guest's name of the disk; Python and its outbox are the first two."""
_DISK = 64
"""MiB."""
_INITRAMFS, _CONFIGURATION = "kmemdump.img", "kdump.conf"
_PATIENCE = 1800.0
"""Seconds for each step, on a busy host."""
_BANNER = "] Linux version "
_PANIC = re.compile(r"Kernel panic - .*")
_COPIER = re.compile(r"^kmemdump: .*", re.MULTILINE)
_COPIED = re.compile(
    r"^kmemdump: (/dev/\S+: \d+ bytes.*? in (?P<ms>\d+) ms)\r?$", re.MULTILINE
)


def run_crash_kernel_demo(
    folder: Path,
    cache: PackageCache,
    say: Callable[[str], None],
    kernel: KernelPackage,
    *,
    memory: int = 1024,
    random: int = 0,
    reserved: int = CRASH_KERNEL,
) -> DemoResult:
    """
    Boot a kernel, mark it from inside, make it panic, collect what is left of it.

    :param folder: Where ``core.elf`` is written.
    :param say: Called with a line about each step.
    :param memory: MiB of the VM's memory.
    :param random: MiB of random data in it.
    :param reserved: MiB of it that are the crash kernel's.
    :raises KmemdumpError: If it cannot be done on this machine.
    """
    require_programs(kernel.architecture.qemu, "setpriv")
    with tempfile.TemporaryDirectory(prefix="kmemdump-demo-") as name:
        plain = Setup(kernel, memory=memory, random=random)
        setup = _with_crash_kernel(plain, reserved, Path(name), cache)
        say(
            f"booting {whose(kernel)}{kernel.release} in QEMU: {setup.cpus} CPUs, "
            f"{setup.memory} MiB, {reserved} of them for a crash kernel"
        )
        with Machine(cache, setup, timeout=_PATIENCE) as machine:
            return _tell(machine, folder / "core.elf", say)


def _with_crash_kernel(
    setup: Setup, reserved: int, folder: Path, cache: PackageCache
) -> Setup:
    """Add what an installation would have left on the machine's disk."""
    kernel = setup.kernel
    settings = CopierSettings((f"raw:{_PARTITION}",))
    kexec = kexec_files(cache, kernel.architecture)
    initramfs, configuration = folder / _INITRAMFS, folder / _CONFIGURATION
    configuration.write_bytes(settings.text())
    setup = replace(
        setup,
        share=False,  # Nobody outside looks.
        vmcoreinfo=False,
        action="panic=pause,reboot=reset,shutdown=pause",
        arguments=(f"crashkernel={reserved}M",),
        files=(*kexec, kernel.vmlinuz, initramfs, configuration),
        disk=_DISK,
        python=python_image(cache, kernel.architecture),
    )
    copier = build_copier(cache, kernel.architecture).read_bytes()
    modules = {
        it: kernel.module(it) for it in setup.disk_modules if it.startswith("virtio")
    }
    initramfs.write_bytes(pack_crash_initramfs(copier, settings, modules))
    return setup


def _tell(machine: Machine, core: Path, say: Callable[[str], None]) -> DemoResult:
    prepare_partition(machine.folder / "disk")
    _prepare_guest(machine)
    say(f"inside the VM: {_kexec(machine)}")
    marked = _kmemdump(machine, "mark live --backend kdump", say)
    say("killing it: echo c > /proc/sysrq-trigger")
    start, before = time.monotonic(), len(machine.console)
    trigger_crash(machine, CrashType.PANIC)
    said, copying = wait_for_copy(machine, before)
    seconds = time.monotonic() - start
    say(f"dead; its crash kernel has booted, and says: {said}")
    machine.wait_ready()
    say("it has booted again, as a whole")
    _prepare_guest(machine)
    collected = _kmemdump(machine, "collect kdump -o /run/core.elf", say)
    fetch_core(machine, core)
    say(f"fetched from the VM: {core}, {format_size(core.stat().st_size)}")
    return DemoResult(core, marked and collected, seconds, copying=copying)


def fetch_core(machine: Machine, core: Path) -> None:
    """
    Copy the guest's core image to a file, which gets its name when it is whole.

    :raises TargetError: If the guest cannot read it.
    :raises OutputError: If *core* cannot be written.
    """
    fetched = machine.folder / "core.elf"
    machine.fetch("/run/core.elf", fetched)
    with PartialFile(core) as output, open(fetched, "rb") as source:
        shutil.copyfileobj(source, output, 1 << 20)


def _kmemdump(machine: Machine, arguments: str, say: Callable[[str], None]) -> bool:
    """Run a verb in the guest, and return whether it did all that it was asked."""
    command = f"kmemdump {arguments}"
    say(f"inside the VM: {command}")
    *lines, status = machine.run(f"{command}; echo $?", timeout=_PATIENCE).splitlines()
    for line in lines:
        say(f"  {line}")
    if status not in (str(int(it)) for it in (ExitCode.DONE, ExitCode.INCOMPLETE)):
        raise TargetError(f"the guest's {command!r} failed with status {status}")
    return status == str(int(ExitCode.DONE))


def _prepare_guest(machine: Machine) -> None:
    """Bring a guest, in each boot, to where a server is after its own boot."""
    for command in (
        f"mkdir -p /{Path(SETTINGS).parent} /dev/hugepages",
        f"cat /files/{_CONFIGURATION} >/{SETTINGS}",
        "mount -o bind /etc /python/etc",
        "mount -t hugetlbfs -o pagesize=2M,mode=0700 none /python/dev/hugepages",
    ):
        machine.run(command)


def _kexec(machine: Machine) -> str:
    """Load the crash kernel, and return what a person would have typed."""
    setup = machine.setup
    image, console = setup.kernel.vmlinuz.name, f"console={setup.architecture.console}"
    arguments = " ".join((console, *setup.architecture.command_line, ARGUMENTS))
    machine.run(
        f"{kexec_command(setup.files)} -a -p /files/{image} "
        f"--initrd=/files/{_INITRAMFS} --append='{arguments}'",
        timeout=_PATIENCE,
    )
    if machine.run("cat /sys/kernel/kexec_crash_loaded") != "1":
        raise TargetError("the guest's kexec loaded no crash kernel")
    return f"kexec -a -p {image} --initrd={_INITRAMFS}"


def wait_for_copy(machine: Machine, start: int) -> tuple[str, float]:
    """
    Return what the crash kernel says of the image that it wrote, and its seconds.

    :param start: Where the console's text of the death begins.
    :raises TargetError: If it writes none.
    """
    said = ""
    for _ in _until(time.monotonic() + _PATIENCE):
        said = machine.console[start:]
        found = _COPIED.search(said)
        if found is not None:
            return found[1], int(found["ms"]) / 1000
        if said.count(_BANNER) > 1:  # The crash kernel's, and the next boot's.
            break
    # The first panic is what was asked for.
    why = [*_PANIC.findall(said)[1:], *_COPIER.findall(said)]
    last = (said.strip().splitlines() or ["nothing"])[-1]
    raise TargetError(
        f"the crash kernel wrote nothing; it says: {why[-1] if why else last}"
    )


def _until(deadline: float) -> Iterator[None]:
    while time.monotonic() < deadline:
        yield
        time.sleep(0.1)
