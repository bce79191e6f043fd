# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk with Debian's own kdump-tools, to which a machine's crash kernel boots."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from kmemdump.lab import KernelPackage, Machine, PackageCache
from rigs.debian_root import debian_root

__all__ = ["DISK", "add_files", "kdump_tools_disk", "read_folder", "start_kdump_tools"]

DISK = 1200
"""MiB."""
_SUITE = "bookworm"
_PACKAGES = ("systemd-sysv", "udev", "makedumpfile", "kexec-tools", "kdump-tools")
_SEEN = "/var/lib/kdump/latest_sysctls"
_ROOT = "/debian"
_DEBUGFS = "/usr/sbin/debugfs"
_PATIENCE = 900.0


def kdump_tools_disk(cache: PackageCache, kernel: KernelPackage) -> Path:
    """
    Return an ext4 image with what ``apt install kdump-tools`` leaves of a machine.

    Needs root and debootstrap. It is made once.
    """

    def make(folder: Path) -> None:
        with debian_root(cache, _SUITE) as root:
            assert kernel.package is not None
            root.install_machine(*_PACKAGES, kernel.package)
            # What else the first load would do, in an emulated machine: an initrd.
            root.run(f"kdump-config symlinks {kernel.release}")
            root.run(f"cp /etc/kdump/sysctl.conf {_SEEN}-{kernel.release}")
            root.write_disk(folder / "disk", f"{DISK}M")

    return cache.entry(f"kdump-tools_{_SUITE}_{kernel.release}", make) / "disk"


def add_files(source: Path, image: Path, files: Mapping[str, Path]) -> None:
    """Copy an ext4 image, and files into the copy; their folders are made."""
    subprocess.run(["cp", "--sparse=always", source, image], check=True)
    requests = []
    for place, path in files.items():
        requests += [f"mkdir {folder}" for folder in list(Path(place).parents)[-2::-1]]
        requests += [f"rm {place}", f"write {path} {place}"]
    # What is there already, or is not, is told and passed over.
    text = "".join(f"{request}\n" for request in requests)
    argv = [_DEBUGFS, "-wf", "-", str(image)]
    subprocess.run(argv, input=text, text=True, check=True, capture_output=True)


def read_folder(disk: Path, folder: str, target: Path) -> Path:
    """Copy a folder of an ext4 image, whose journal is replayed, into another one."""
    argv = ["/usr/sbin/e2fsck", "-fy", str(disk)]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout
    target.mkdir()
    request = f"rdump {folder} {target}"
    subprocess.run(
        [_DEBUGFS, "-R", request, str(disk)], check=True, capture_output=True
    )
    return target / Path(folder).name


def start_kdump_tools(machine: Machine, image: Path) -> str:
    """
    Let kdump-tools load a crash kernel whose root is a disk; return what it says.

    :param image: Copied to the machine's disk.
    """
    # Into the file that QEMU has open; what is zeros there stays a hole.
    argv = ["dd", f"if={image}", f"of={machine.folder}/disk", "bs=1M"]
    argv += ["conv=sparse,notrunc", "status=none"]
    subprocess.run(argv, check=True)
    for command in (
        f"mkdir {_ROOT} && mount -t ext4 /dev/vda {_ROOT}",
        f"for it in proc sys dev; do mount -o bind /$it {_ROOT}/$it; done",
    ):
        machine.run(command, timeout=_PATIENCE)
    said = machine.run(
        f"PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot {_ROOT} "
        "/usr/sbin/kdump-config load 2>&1",
        timeout=_PATIENCE,
    )
    machine.run(
        f"for it in proc sys dev; do umount {_ROOT}/$it; done; umount {_ROOT}",
        timeout=_PATIENCE,
    )
    assert machine.run("cat /sys/kernel/kexec_crash_loaded") == "1", said
    return said
