# SPDX-License-Identifier: GPL-2.0-or-later
"""
Measure what kdump, a crash kernel of ours and pstore leave of a guest, and when.

kdump: a second kernel is loaded as ``kexec -p -s`` does it, by the same system call;
its initramfs holds only what makedumpfile needs. Ours copies what was marked from
inside. pstore: ramoops keeps the log in RAM, and the next boot reads it. All boots are
emulated.

Then programs say what happened, of what each left: ours, crash, and hotkdump.
"""

from __future__ import annotations

import re
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.summaries import (
    KDUMP,
    MARKED,
    PSTORE,
    Summary,
    measure_summaries,
)
from kmemdump.errors import TargetError
from kmemdump.formats.cpio import Entry, pack_cpio
from kmemdump.lab import (
    CrashType,
    KernelPackage,
    Machine,
    PackageCache,
    Setup,
    python_image,
)
from kmemdump.lab.commands import run
from kmemdump.lab.crash_kernel_demo import CRASH_KERNEL, run_crash_kernel_demo
from kmemdump.lab.crashes import crash_guest, trigger_crash
from kmemdump.lab.shared_libraries import libraries
from kmemdump.memory.ranges import Range

__all__ = ["Peer", "Peers", "measure_peers"]

_RAMOOPS = Range(0x30000000, 1 << 20)
_PATIENCE = 1800.0
"""Seconds for a boot, or for a dump, on a busy host."""

# Documentation/admin-guide/kdump/kdump.rst has the arguments. The kernel adds the
# place of the dead one's memory.
_LOAD = """
import ctypes, os
files = [os.open(f"/run/{name}", os.O_RDONLY) for name in ("vmlinuz", "second")]
arguments = b"console=ttyS0 nr_cpus=1 irqpoll reset_devices panic=1"
libc = ctypes.CDLL(None, use_errno=True)
SYS_kexec_file_load, KEXEC_FILE_ON_CRASH = 320, 2
size = ctypes.c_ulong(len(arguments) + 1)
if libc.syscall(SYS_kexec_file_load, *files, size, arguments, KEXEC_FILE_ON_CRASH):
    raise SystemExit(os.strerror(ctypes.get_errno()))
"""

_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
read -r begin rest </proc/uptime
mount -t devtmpfs dev /dev
for module in {modules}; do
	insmod "/modules/$module.ko"
done
mount -t ext4 /dev/vdb /out
makedumpfile -c -d 31 /proc/vmcore /out/vmcore
umount /out
read -r end rest </proc/uptime
echo "from $begin to $end: SECOND-DONE" >/dev/kmsg
poweroff -f
"""
_DONE = re.compile(r"from ([0-9.]+) to ([0-9.]+): SECOND-DONE")


@dataclass(frozen=True, slots=True)
class Peer:
    """What one of them left."""

    name: str
    seconds: float
    """From the death to a whole file."""
    copying: float | None
    """Those from the crash kernel's first user space on; ``None`` without one."""
    size: int
    """Size of the file in bytes."""
    reserved: int
    """Bytes of memory that were reserved while the kernel lived."""


@dataclass(frozen=True, slots=True)
class Peers:
    """What was measured on machines of one size."""

    release: str
    memory: int
    """MiB."""
    random: int
    """MiB of random data."""
    peers: list[Peer]
    summaries: list[Summary]


def measure_peers(
    series: str,
    memory: int,
    cache: PackageCache,
    folder: Path,
    reserved: int,
    hotkdump: Path | None,
    say: Callable[[str], None],
) -> Peers:
    """
    Measure them, each on a machine of its own; a quarter of it, but at most 1 GiB, is
    random data.

    :param memory: MiB.
    :param folder: Keeps ``kdump.vmcore``, ``core.elf`` and ``pstore.txt``.
    :param reserved: MiB for a crash kernel of ours; makedumpfile gets Debian's default.
    :param hotkdump: Its source.
    :param say: Called with a line about each step.
    :raises KmemdumpError: If it cannot be done on this machine.
    """
    kernel, random = cache.kernel(series), min(memory // 4, 1024)
    say(f"kdump: {kernel.release}, {memory} MiB, {random} MiB of random data")
    load, second = folder / "load.py", folder / "second"
    setup = Setup(
        kernel,
        memory=memory,
        random=random,
        share=False,
        arguments=(f"crashkernel={CRASH_KERNEL}M",),
        files=(load, second, kernel.vmlinuz),
        python=python_image(cache, kernel.architecture),
    )
    load.write_text(_LOAD)
    second.write_bytes(pack_cpio(_second_system(setup, cache)))
    kdump = _kdump(Machine(cache, setup, timeout=_PATIENCE), folder)
    say("a crash kernel that copies what is marked")
    ours = _ours(kernel, memory, random, reserved, cache, folder)
    say("pstore")
    modules = []
    for name in ("reed_solomon", "ramoops"):
        modules.append(folder / f"{name}.ko")
        modules[-1].write_bytes(kernel.module(name))
    setup = Setup(
        kernel,
        memory=memory,
        share=False,
        arguments=(f"memmap={_RAMOOPS.size:#x}${_RAMOOPS.start:#x}",),
        action="panic=pause,reboot=reset,shutdown=pause",
        tasks=20,
        files=tuple(modules),
    )
    pstore = _pstore(Machine(cache, setup, timeout=_PATIENCE), folder)
    for path in (load, second, *modules):
        path.unlink()
    say("what programs say of them")
    summaries = list(measure_summaries(folder, cache.vmlinux(kernel), hotkdump))
    return Peers(kernel.release, memory, random, [kdump, ours, pstore], summaries)


def _kdump(machine: Machine, folder: Path) -> Peer:
    with machine:
        release = machine.setup.kernel.release
        for name, here in ((f"vmlinuz-{release}", "vmlinuz"), ("second", "second")):
            machine.run(f"cat /files/{name} >/run/{here}", timeout=300)
        machine.run("cat /files/load.py >/run/load.py")
        machine.run("chroot /python /usr/bin/python3 /run/load.py", timeout=300)
        reserved = int(machine.run("cat /sys/kernel/kexec_crash_size"))
        disk = machine.folder / "outbox"
        run("/usr/sbin/mke2fs", "-q", "-t", "ext4", str(disk))
        trigger_crash(machine, CrashType.PANIC)
        _wait(machine, "Kernel panic", 1)
        start = time.monotonic()
        _wait(machine, "SECOND-DONE", 1)
        seconds = time.monotonic() - start
        found = _DONE.search(machine.console)
        if found is None:
            raise TargetError("the second kernel does not say when it had written")
        copying = float(found[2]) - float(found[1])
        path = folder / "kdump.vmcore"
        path.unlink(missing_ok=True)
        subprocess.run(
            ["/usr/sbin/debugfs", "-R", f"dump /vmcore {path}", disk],
            check=True,
            stderr=subprocess.DEVNULL,
        )
    return Peer(KDUMP, seconds, copying, path.stat().st_size, reserved)


def _ours(
    kernel: KernelPackage,
    memory: int,
    random: int,
    reserved: int,
    cache: PackageCache,
    folder: Path,
) -> Peer:
    def ignore(_: str) -> None:
        pass

    found = run_crash_kernel_demo(
        folder, cache, ignore, kernel, memory=memory, random=random, reserved=reserved
    )
    size = found.core.stat().st_size
    return Peer(MARKED, found.seconds, found.copying, size, reserved << 20)


def _second_system(setup: Setup, cache: PackageCache) -> Iterator[Entry]:
    """Yield the initramfs of the second kernel."""

    def make(folder: Path) -> None:
        with cache.apt(setup.architecture).downloaded("makedumpfile", None) as deb:
            run("dpkg-deb", "-x", str(deb), str(folder))

    program = cache.entry("makedumpfile_amd64", make) / "usr/bin/makedumpfile"
    modules = {name: setup.kernel.module(name) for name in setup.modules}
    contents = {
        "bin/busybox": cache.busybox(setup.architecture).read_bytes(),
        "bin/makedumpfile": program.read_bytes(),
        "init": _INIT.format(modules=" ".join(modules)).encode(),
        **{f"modules/{name}.ko": data for name, data in modules.items()},
        **{str(it)[1:]: it.read_bytes() for it in libraries([program])},
    }
    parents = {it for name in contents for it in Path(name).parents} - {Path()}
    for folder in sorted(parents | set(map(Path, ("dev", "out", "proc", "tmp")))):
        yield Entry(str(folder), stat.S_IFDIR | 0o755)
    for name, data in contents.items():
        yield Entry(name, stat.S_IFREG | 0o755, data)


def _pstore(machine: Machine, folder: Path) -> Peer:
    load = (
        "insmod /files/reed_solomon.ko && insmod /files/ramoops.ko "
        f"mem_address={_RAMOOPS.start} mem_size={_RAMOOPS.size} "
        "record_size=131072 ecc=1"
    )
    with machine:
        machine.run(load)
        crash_guest(machine, CrashType.PANIC)
        start = time.monotonic()
        machine.control.execute("system_reset")
        _wait(machine, "GUEST-READY", 2)
        command = "mount -t pstore pstore /sys/fs/pstore && cat /sys/fs/pstore/dmesg-*"
        said = machine.run(f"{load} && {command}")
        seconds = time.monotonic() - start
        text = said.partition("\n")[2]  # After the line that says the guest is ready.
        path = folder / "pstore.txt"
        path.write_text(text)
    return Peer(PSTORE, seconds, None, path.stat().st_size, _RAMOOPS.size)


def _wait(machine: Machine, text: str, count: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while machine.console.count(text) < count:
        if time.monotonic() > deadline:
            last = (machine.console.strip().splitlines() or ["nothing"])[-1]
            raise TargetError(f"the guest does not say {text!r}; its last line: {last}")
        time.sleep(0.05)
