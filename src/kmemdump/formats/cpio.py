# SPDX-License-Identifier: GPL-2.0-or-later
"""
Write a cpio archive, which the kernel unpacks as its root file system.

This needs neither cpio nor root (for device nodes): the kernel brings its own
/dev/console, and devtmpfs the rest.
"""

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Entry", "pack_cpio"]


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


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
