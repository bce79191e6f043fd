# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine with a crash kernel of its own, which copies what is marked."""

import hashlib
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from kmemdump.backends.kdump import KdumpBackend
from kmemdump.crash_kernel.installation import ARGUMENTS
from kmemdump.errors import TargetError
from kmemdump.formats.cpio import Entry, pack_cpio
from kmemdump.lab import X86_64, Architecture, Machine, PackageCache, Setup
from kmemdump.lab.kexec import kexec_command, kexec_files
from kmemdump.lab.module import find_compiler
from kmemdump.marking.registration import Registration
from kmemdump.marking.selection import select
from kmemdump.memory.physical import WritableMemory
from kmemdump.memory.ranges import Range
from kmemdump.opening import open_target
from kmemdump.targets.writable import open_writable

__all__ = [
    "FULL_COPY_AT",
    "build_helper",
    "hold_page",
    "judged_initramfs",
    "load_crash_kernel",
    "marked_from_outside",
    "wait_for_reboot",
    "wait_for_text",
]

FULL_COPY_AT = 64
"""MiB from the start of the disk, where the crash kernel copies /proc/vmcore to."""
_SECOND_AT = 32
"""MiB from the start of the disk, where the host leaves the crash kernel's files."""
_SOURCE = Path(__file__).parents[1] / "crash_kernel/helper.c"
_LIST_SIZE = 2 << 20
_PATIENCE = 900.0

"""What kdump-tools adds to a crash kernel's command line, and no more."""

_JUDGED = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
for module in {modules}; do
	/bin/busybox insmod "/modules/$module.ko"
done
/copier {settings}
/bin/busybox dd if=/proc/vmcore of=/dev/vda bs=1M seek={at} conv=notrunc
/bin/busybox sync
/bin/busybox reboot -f
"""


class _Page:
    """A table in a page of a guest's memory that the guest holds."""

    name = "list"
    reserved: Sequence[Range] = ()

    def __init__(self, memory: WritableMemory, where: Range) -> None:
        self._memory, self._where = memory, where

    def open_backend(self) -> KdumpBackend:
        return KdumpBackend(self._memory, self._where)

    def withdraw(self) -> None:
        self.open_backend().withdraw()

    def close(self) -> None:
        self._memory.close()


def build_helper(cache: PackageCache, architecture: Architecture) -> Path:
    """Return ``helper``, linked statically for a guest."""
    compiler = find_compiler(architecture)
    name = f"crash-helper-{hash_of(_SOURCE)}-{architecture.name}"

    def make(folder: Path) -> None:
        argv = [compiler, "-O1", "-static", "-o", folder / "helper", _SOURCE]
        subprocess.run(list(map(str, argv)), check=True)

    return cache.entry(name, make) / "helper"


def hash_of(path: Path) -> str:
    """Return a short name of a file's contents."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def judged_initramfs(
    copier: Path, busybox: Path, modules: Mapping[str, bytes], settings: Iterable[str]
) -> bytes:
    """Return a root file system that copies all of /proc/vmcore after the regions."""
    text = _JUDGED.format(
        modules=" ".join(modules), settings=" ".join(settings), at=FULL_COPY_AT
    )
    folder, file = 0o40755, 0o100755
    return pack_cpio(
        [
            *(Entry(it, folder) for it in ("bin", "dev", "modules", "proc", "sys")),
            Entry("init", file, text.encode()),
            Entry("bin/busybox", file, busybox.read_bytes()),
            Entry("copier", file, copier.read_bytes()),
            *(Entry(f"modules/{it}.ko", file, data) for it, data in modules.items()),
        ]
    )


def load_crash_kernel(machine: Machine, initramfs: bytes) -> Range:
    """
    Load a crash kernel, and return the page that is held for the list.

    The initramfs goes by way of the disk, so that one snapshot serves them all.
    """
    with open(machine.folder / "disk", "r+b") as disk:
        disk.write(b"Raw_Dmp!")
        disk.seek(_SECOND_AT << 20)
        disk.write(initramfs)
    size = -(-len(initramfs) // 512)
    machine.run(
        f"dd if=/dev/vda of=/run/second bs=512 skip={_SECOND_AT << 11} count={size}"
        " 2>/dev/null",
        timeout=_PATIENCE,
    )
    page = hold_page(machine)
    arch = machine.setup.architecture
    arguments = " ".join((f"console={arch.console}", *arch.command_line, ARGUMENTS))
    # -a: kexec_file_load() where the kernel has it; Debian's for arm64 have not.
    machine.run(
        f"{kexec_command(machine.setup.files)} -a -p "
        f"/files/{machine.setup.kernel.vmlinuz.name} --initrd=/run/second "
        f"--append='{arguments}'",
        timeout=_PATIENCE,
    )
    assert machine.run("cat /sys/kernel/kexec_crash_loaded") == "1"
    return page


def hold_page(machine: Machine) -> Range:
    """Return a page that a guest holds for the list."""
    machine.run(
        "mkdir /huge && mount -t hugetlbfs -o pagesize=2M none /huge && "
        "echo 1 >/proc/sys/vm/nr_hugepages"
    )
    start = int(machine.run("/files/helper hold /huge/list"), 16)
    return Range(start, _LIST_SIZE)


@contextmanager
def marked_from_outside(machine: Machine, page: Range) -> Iterator[Registration]:
    """Mark the guest's kernel in its list, as its agent would from inside."""
    with open_target(f"qmp:{machine.qmp}") as target:
        table = _Page(open_writable(target), page)
        with Registration(target, select(), table) as registration:
            yield registration


def wait_for_reboot(machine: Machine, crash: Callable[[], None]) -> str:
    """Crash a machine, and return what it says until its crash kernel reboots it."""
    before = len(machine.console)
    crash()
    deadline = time.monotonic() + _PATIENCE
    while machine.control.status() == "running":
        if time.monotonic() > deadline:
            raise TargetError(f"no reboot: {machine.console[-2000:]}")
        time.sleep(0.1)
    return machine.console[before:]


def wait_for_text(machine: Machine, text: str, start: int) -> None:
    """Wait until a machine's console says something from a place on."""
    deadline = time.monotonic() + _PATIENCE
    while text not in machine.console[start:]:
        if time.monotonic() > deadline:
            raise TargetError(f"no {text!r}: {machine.console[-2000:]}")
        time.sleep(0.02)


def make_setup_fields(cache: PackageCache, setup: Setup) -> dict[str, object]:
    """Return the fields of a setup with a crash kernel."""
    architecture = setup.architecture
    helper = build_helper(cache, architecture)
    # An Image for arm64 is not compressed, and is loaded twice for a moment.
    memory, reserved = (512, 128) if architecture is X86_64 else (768, 256)
    return {
        "architecture": architecture,
        "memory": memory,
        "disk": FULL_COPY_AT + memory + 32,
        "arguments": (f"crashkernel={reserved}M",),
        "files": (helper, setup.kernel.vmlinuz, *kexec_files(cache, architecture)),
    }
