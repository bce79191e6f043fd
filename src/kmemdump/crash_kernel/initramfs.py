# SPDX-License-Identifier: GPL-2.0-or-later
"""
Make the root file system of a crash kernel that only copies the regions.

The copier (``kdump/``) is its process 1. There is nothing else but its settings and the
modules of the disk that it writes to.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping

from kmemdump.crash_kernel.settings import CopierSettings
from kmemdump.errors import UsageError
from kmemdump.formats.cpio import Entry, pack_cpio

__all__ = ["COPIER", "pack_crash_initramfs"]

COPIER = "kmemdump-kdump"
"""Name of the copier's program."""

_MAX_MODULES = 64  # As MAX_MODULES of kdump/main.c.


def pack_crash_initramfs(
    copier: bytes, settings: CopierSettings, modules: Mapping[str, bytes]
) -> bytes:
    """
    Return the root file system.

    :param copier: The program, built for the crash kernel's architecture.
    :param modules: Content of each module by name, in the order to load them; not
        compressed.
    :raises UsageError: If a setting is none that the copier understands.
    """
    if len(modules) > _MAX_MODULES:
        raise UsageError(f"{len(modules)} modules, expected at most {_MAX_MODULES}")
    text = settings.text([f"load=/modules/{name}.ko" for name in modules])
    entries = [
        Entry(name, stat.S_IFDIR | 0o755)
        for name in ("dev", "mnt", "modules", "proc", "sys")
    ]
    entries.append(Entry("init", stat.S_IFREG | 0o755, copier))
    entries.append(Entry("kmemdump.conf", stat.S_IFREG | 0o644, text))
    for name, data in modules.items():
        entries.append(Entry(f"modules/{name}.ko", stat.S_IFREG | 0o644, data))
    return pack_cpio(entries)
