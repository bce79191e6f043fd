# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a kernel is: this machine, a VM, or a file with its memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from kmemdump.errors import TargetError, UsageError
from kmemdump.memory import Memory
from kmemdump.targets.file import OpenFile
from kmemdump.vmcoreinfo import VMCOREINFO_LIMIT, VmcoreInfo

if TYPE_CHECKING:
    from kmemdump.kernel.pagetable import Alias

__all__ = ["NamingTarget", "Target", "open_target", "read_vmcoreinfo"]


class Target(Protocol):
    """A kernel's memory, and what is known about it besides."""

    @property
    def name(self) -> str:
        """As a person would name it."""

    @property
    def machine(self) -> int:
        """Architecture: an ELF ``e_machine``."""

    @property
    def memory(self) -> Memory:
        """Its physical memory."""

    def vmcoreinfo(self) -> VmcoreInfo:
        """
        Return the VMCOREINFO of the kernel.

        :raises KmemdumpError: If it has none.
        """

    def registers(self) -> list[bytes]:
        """
        Return the NT_PRSTATUS descriptor of each CPU, in the order of CPUs.

        :return: Empty if they are not known.
        """

    def close(self) -> None:
        """Release files and connections. Does not fail."""


@runtime_checkable
class NamingTarget(Target, Protocol):
    """A target that knows virtual names of its memory without a page table."""

    @property
    def aliases(self) -> Sequence[Alias]:
        """Ranges of virtual addresses and the physical memory there."""


def open_target(
    spec: str,
    *,
    vmcoreinfo: Path | None = None,
    memory_map: str | None = None,
    damaged: bool = False,
) -> Target:
    """
    Open a target.

    :param spec: ``live`` (this machine), ``qmp:SOCKET``, or the path of a file, or of
        a folder of md_*.BIN.
    :param vmcoreinfo: File with the text of VMCOREINFO, to be used instead of
        what the target holds.
    :param memory_map: For a raw RAM image, which a file is taken for that is in
        no format of ours: ``FIRST-LAST@OFFSET,…``, see
        :func:`kmemdump.targets.image.parse_memory_map`.
    :param damaged: Whether to go on with what is left of a truncated dump.
    :raises KmemdumpError: If it cannot be opened, or is something else.
    """
    info = read_vmcoreinfo(vmcoreinfo) if vmcoreinfo else None
    kind, colon, rest = spec.partition(":")
    if kind == "qmp" and colon:
        if memory_map is not None:
            raise UsageError(f"{spec}: QEMU knows its memory map, expected none given")
        # Here, so that those who open a file need not wait for asyncio.
        from kmemdump.targets.qmp import QmpTarget

        return QmpTarget(Path(rest), vmcoreinfo=info)
    if kind == "file" and colon:
        spec = rest
    if not spec:
        raise UsageError("no target, expected live, qmp:SOCKET or the path of a file")
    if (spec == "live" and not colon) or spec == "/proc/kcore":
        from kmemdump.targets.live import open_live

        if memory_map is not None:
            raise UsageError(
                f"{spec}: tells its memory map itself, expected none given"
            )
        return open_live(info)
    if os.path.isdir(spec):
        return _open_folder(Path(spec), info, memory_map)
    file = OpenFile(Path(spec))
    try:
        return _open_file(file, info, memory_map, damaged)
    except BaseException:
        file.close()
        raise


def _open_file(
    file: OpenFile, info: VmcoreInfo | None, memory_map: str | None, damaged: bool
) -> Target:
    from kmemdump.formats.flat import FLAT_MAGIC
    from kmemdump.formats.kdump import KDUMP_MAGIC
    from kmemdump.formats.lime import LIME_MAGIC
    from kmemdump.formats.rawdump import RAWDUMP_MAGIC
    from kmemdump.targets.foreign import describe_foreign
    from kmemdump.targets.image import open_image
    from kmemdump.targets.kdump import open_kdump
    from kmemdump.targets.vmcore import open_elf, open_lime

    head = file.read(0, 8192)
    opener = None
    if head.startswith(RAWDUMP_MAGIC):
        return _open_rawdump(file, info)
    if head.startswith(b"\x7fELF"):
        opener = open_elf
    elif head.startswith((KDUMP_MAGIC, FLAT_MAGIC)):
        opener = open_kdump
    elif head.startswith(LIME_MAGIC):
        opener = open_lime
    # A person who knows the memory map knows what the file is.
    if opener is open_elf or (opener is None and memory_map is None):
        foreign = describe_foreign(head)
        if foreign is not None:
            raise TargetError(f"{file.name}: {foreign}")
    if opener is None:
        return open_image(file, memory_map, info)
    if memory_map is not None:
        raise UsageError(
            f"{file.name}: is no raw RAM image and tells its memory map itself, "
            "expected none given"
        )
    return opener(file, info, damaged)


def _open_folder(folder: Path, info: VmcoreInfo | None, map: str | None) -> Target:
    # Here, for what is collected becomes a target itself.
    from kmemdump.collect import DumpTarget, collect_folder

    if map is not None:
        raise UsageError(f"{folder}: its files have addresses, expected no memory map")
    return DumpTarget(collect_folder(folder), info)


def _open_rawdump(file: OpenFile, info: VmcoreInfo | None) -> Target:
    from kmemdump.collect import DumpTarget, collect_rawdump

    target = DumpTarget(collect_rawdump(file), info)
    file.close()
    return target


def read_vmcoreinfo(path: Path) -> VmcoreInfo:
    """
    Read a file with the text of VMCOREINFO.

    :raises KmemdumpError: If it cannot be read, or is something else.
    """
    file = OpenFile(path)
    try:
        return VmcoreInfo.parse(file.read(0, VMCOREINFO_LIMIT + 1), file.name)
    finally:
        file.close()
