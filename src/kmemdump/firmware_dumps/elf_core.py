# SPDX-License-Identifier: GPL-2.0-or-later
"""
An ELF core that a tool made of the files that firmware left.

qdl puts the files of a minidump behind their ELF header, as ``minidump.elf``.
"""

from __future__ import annotations

from kmemdump.coreimage.read import find_extents
from kmemdump.firmware_dumps.assemble import FirmwareDump, assemble
from kmemdump.firmware_dumps.fragments import FileContents, Fragment, OpenFiles
from kmemdump.targets import Target
from kmemdump.targets.vmcore import core_of

__all__ = ["collect_elf_core"]


def collect_elf_core(target: Target) -> FirmwareDump | None:
    """
    Take the segments of an ELF core for regions.

    :return: ``None`` if it is something else: a core image of ours, or memory with the
        page table that gives it its names, as a vmcore is.
    :raises TargetError: If it holds no memory.
    """
    core = core_of(target)
    if core is None or core.has_manifest or not getattr(target, "aliases", None):
        return None
    files = OpenFiles()
    path = str(core.path)
    fragments = [Fragment("KELF", FileContents(files, path, 0, core.size))]
    for item in find_extents(core.headers, core.size, core.name):
        contents = FileContents(files, path, item.offset, item.size)
        fragments.append(Fragment(f"{item.address:#x}", contents, item.address))
    try:
        return assemble(core.name, fragments, files=files, problems=core.problems)
    except BaseException:
        files.close()
        raise
