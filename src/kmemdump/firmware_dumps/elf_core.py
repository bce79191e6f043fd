# SPDX-License-Identifier: GPL-2.0-or-later
"""
An ELF core that a tool made of the files that firmware left, or a crash kernel's copy.

qdl puts the files of a minidump behind their ELF header, as ``minidump.elf``.
"""

from __future__ import annotations

from kmemdump.coreimage.read import CoreImage, find_extents
from kmemdump.firmware_dumps.assemble import FirmwareDump, assemble
from kmemdump.firmware_dumps.fragments import FileContents, Fragment, OpenFiles
from kmemdump.formats.copied import check_copy, read_copied
from kmemdump.targets import Target
from kmemdump.targets.vmcore import core_of

__all__ = ["collect_elf_core"]


def collect_elf_core(target: Target) -> FirmwareDump | None:
    """
    Take the segments of an ELF core for regions.

    :return: ``None`` if it is something else: a core image of ours, or memory with the
        page table that gives it its names, as a vmcore is and a crash kernel's copy is
        not.
    :raises TargetError: If it holds no memory.
    """
    core = core_of(target)
    if core is None or core.has_manifest:
        return None
    files = OpenFiles()
    path = str(core.path)

    def read(offset: int, count: int) -> bytes:
        return files.read(path, offset, count)

    try:
        copied = read_copied(read, core.size, core.name)
        problems = list(core.problems)
        if copied is not None:
            problems += check_copy(read, copied, core.name)
        elif not getattr(target, "aliases", None):
            files.close()
            return None
        dump = assemble(
            core.name, _fragments(core, files, path), files=files, problems=problems
        )
    except BaseException:
        files.close()
        raise
    return dump if copied is None else dump._replace(backend="kdump")


def _fragments(core: CoreImage, files: OpenFiles, path: str) -> list[Fragment]:
    fragments = [Fragment("KELF", FileContents(files, path, 0, core.size))]
    # Several segments may begin at one address, each under a virtual one of its own.
    sizes = {(it.paddr, it.offset): it.memsz for it in core.headers}
    for item in find_extents(core.headers, core.size, core.name):
        contents = FileContents(files, path, item.offset, item.size)
        size = sizes[item.address, item.offset]
        name = f"{item.address:#x}"
        fragments.append(Fragment(name, contents, item.address, size))
    return fragments
