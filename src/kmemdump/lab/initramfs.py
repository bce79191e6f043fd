# SPDX-License-Identifier: GPL-2.0-or-later
"""
Write the guests' root file system: a cpio archive of busybox and modules.

This needs neither cpio nor root (for device nodes): the kernel brings its own
/dev/console, and devtmpfs the rest.
"""

import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files

__all__ = ["Entry", "make_initramfs", "pack_cpio"]

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


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, folder or symbolic link of the archive."""

    name: str
    mode: int
    data: bytes = b""
    """Content of a file, target of a link."""


def pack_cpio(entries: Iterable[Entry]) -> bytes:
    """
    Return a cpio archive as the kernel unpacks it.

    The format is "newc", Documentation/driver-api/early-userspace/buffer-format.rst.

    :param entries: Folders before their contents. All belong to root.
    """
    parts = []
    for inode, entry in enumerate([*entries, Entry("TRAILER!!!", 0)], 1):
        name = entry.name.encode() + b"\0"
        fields = (
            inode,
            entry.mode,
            0,  # uid
            0,  # gid
            1,  # nlink: more would make the kernel look for hard links.
            0,  # mtime
            len(entry.data),
            0,  # device of the file system, major and minor
            0,
            0,  # device of a node, major and minor
            0,
            len(name),
            0,  # checksum, unused in this format
        )
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        parts += [_pad(header + name), _pad(entry.data)]
    return b"".join(parts)


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


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
