# SPDX-License-Identifier: GPL-2.0-or-later
"""Write the guests' root file system: a cpio archive of busybox and modules."""

import stat
from collections.abc import Iterable, Mapping
from importlib.resources import files

from kmemdump.formats.cpio import Entry, pack_cpio

__all__ = ["make_initramfs"]

_APPLETS = (
    "cat",
    "chroot",
    "dd",
    "dmesg",
    "echo",
    "head",
    "ifconfig",
    "insmod",
    "ip",
    "kill",
    "ls",
    "lsmod",
    "mkdir",
    "mkfifo",
    "mount",
    "pidof",
    "poweroff",
    "ps",
    "reboot",
    "rmmod",
    "sh",
    "sleep",
    "stty",
    "sync",
    "taskset",
    "uname",
    "watchdog",
    "wc",
)
_FOLDERS = ("bin", "dev", "modules", "proc", "run", "sys")


def make_initramfs(
    busybox: bytes,
    modules: Mapping[str, bytes],
    *,
    tasks: int,
    random_mib: int,
    port: str = "ttyS1",
    more: Iterable[Entry] = (),
) -> bytes:
    """
    Return the root file system of a guest.

    :param busybox: The program, statically linked.
    :param modules: Content of each module by name, in the order to load them.
    :param tasks: How many sleeping tasks the guest starts.
    :param random_mib: MiB of random data that the guest keeps in memory.
    :param port: Name of the serial port over which the guest takes commands.
    :param more: More entries.
    """
    conf = (
        f"TASKS={tasks}\nRANDOM_MIB={random_mib}\nPORT={port}\n"
        f"MODULES='{' '.join(modules)}'\n"
    )
    init = (files("kmemdump.lab") / "guest" / "init").read_bytes()
    entries = [Entry(name, stat.S_IFDIR | 0o755) for name in _FOLDERS]
    entries.append(Entry("init", stat.S_IFREG | 0o755, init))
    entries.append(Entry("lab.conf", stat.S_IFREG | 0o644, conf.encode()))
    entries.append(Entry("bin/busybox", stat.S_IFREG | 0o755, busybox))
    for name in _APPLETS:
        entries.append(Entry(f"bin/{name}", stat.S_IFLNK | 0o777, b"busybox"))
    for name, module in modules.items():
        entries.append(Entry(f"modules/{name}.ko", stat.S_IFREG | 0o644, module))
    return pack_cpio([*entries, *more])
