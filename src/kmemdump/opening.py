# SPDX-License-Identifier: GPL-2.0-or-later
"""
Open a target by its name.

What only one kind of target needs is loaded for it alone: that takes as long as a
question.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

from kmemdump.coreimage.read import CoreImage, compare_clear
from kmemdump.errors import TargetError, UsageError
from kmemdump.files import OpenFile
from kmemdump.formats.flat import FLAT_MAGIC
from kmemdump.formats.kdump import KDUMP_MAGIC
from kmemdump.formats.lime import LIME_MAGIC
from kmemdump.formats.rawdump import RAWDUMP_MAGIC
from kmemdump.formats.sealed import ClearLine
from kmemdump.sealing import read_sealed, unseal
from kmemdump.targets import Target
from kmemdump.targets.file import FileTarget, read_vmcoreinfo
from kmemdump.targets.image import open_image
from kmemdump.targets.unsupported import describe_unsupported
from kmemdump.targets.vmcore import core_of, open_elf, open_lime
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["open_target", "parse_pid", "was_sealed"]

logger = logging.getLogger(__name__)


_FORMS = {
    "qmp": ("socket", "SOCKET"),
    "libvirt": ("domain", "[URI#]DOMAIN"),
    "ch": ("socket", "SOCKET"),
    "firecracker": ("socket", "SOCKET"),
}
"""What follows the kind of a target."""


def open_target(
    spec: str,
    *,
    vmcoreinfo: Path | None = None,
    memory_map: str | None = None,
    damaged: bool = False,
    identity: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
) -> Target:
    """
    Open a target.

    :param spec: ``live`` (this machine), ``qmp:SOCKET``, ``libvirt:[URI#]DOMAIN``,
        ``pid:PID`` (of a virtual machine monitor), ``ch:SOCKET``,
        ``firecracker:SOCKET``, or the path of a file, or of a folder of md_*.BIN.
    :param vmcoreinfo: File with the text of VMCOREINFO, used instead of the target's
        own.
    :param memory_map: Memory map of a raw RAM image (any file in no known format):
        ``FIRST-LAST@OFFSET,…``, see :func:`kmemdump.targets.image.parse_memory_map`.
    :param damaged: Whether to accept a truncated dump.
    :param identity: File, or files, of private keys for a file that is sealed.
    :raises KmemdumpError: If it cannot be opened, or is not a target.
    """
    info = read_vmcoreinfo(vmcoreinfo) if vmcoreinfo else None
    kind, colon, rest = spec.partition(":")
    if colon and not rest and (form := _FORMS.get(kind)) is not None:
        raise UsageError(f"{spec} names no {form[0]}, expected {kind}:{form[1]}")
    if kind == "qmp" and colon:
        _refuse_map(memory_map, spec, "QEMU knows the memory map")
        from kmemdump.targets.qmp import QmpTarget

        return QmpTarget(Path(rest), vmcoreinfo=info)
    if kind == "libvirt" and colon:
        _refuse_map(memory_map, spec, "QEMU knows the memory map")
        from kmemdump.targets.libvirt.target import open_libvirt, split_spec

        return open_libvirt(*split_spec(rest), vmcoreinfo=info)
    if kind == "pid" and colon:
        _refuse_map(memory_map, spec, "the guest's kernel knows the memory map")
        from kmemdump.targets.process import ProcessTarget

        return ProcessTarget(parse_pid(rest), vmcoreinfo=info)
    if kind in ("ch", "firecracker") and colon:
        _refuse_map(memory_map, spec, "the guest's kernel knows the memory map")
        from kmemdump.targets.api_target import CloudHypervisorTarget, FirecrackerTarget

        opener = CloudHypervisorTarget if kind == "ch" else FirecrackerTarget
        return opener(Path(rest), vmcoreinfo=info)
    if kind == "file" and colon:
        spec = rest
    if not spec:
        raise UsageError(
            "no target, expected live, qmp:SOCKET, pid:PID or the path of a file"
        )
    if (spec == "live" and not colon) or spec == "/proc/kcore":
        _refuse_map(memory_map, spec, "the kernel knows the memory map")
        from kmemdump.targets.live import open_live

        return open_live(info)
    if os.path.isdir(spec):
        _refuse_map(memory_map, spec, "its files have addresses")
        from kmemdump.firmware_dumps.folder import collect_folder
        from kmemdump.firmware_dumps.target import DumpTarget

        return DumpTarget(collect_folder(Path(spec)), info)
    if isinstance(identity, str | os.PathLike):
        identity = (identity,)
    file = OpenFile(Path(spec))
    clear = None
    try:
        sealed = read_sealed(file)
        if sealed is not None:
            with closing(file):
                file = unseal(file, sealed, map(Path, identity))
            clear = sealed.clear
        target = _open_file(file, info, memory_map, damaged)
    except BaseException:
        file.close()
        raise
    if sealed is not None and isinstance(target, FileTarget):
        target.sealed = True
    core = core_of(target)
    if core is not None and clear is not None:
        _compare(core, clear)
    return target


def _compare(core: CoreImage, clear: ClearLine) -> None:
    """Note where a core image differs from what was said of it without a key."""
    problems = compare_clear(core, clear)
    core.problems += problems
    for problem in problems:
        logger.warning("%s", problem)


def was_sealed(target: Target) -> bool:
    """Return whether a target is what was sealed in a file."""
    return isinstance(target, FileTarget) and target.sealed


def parse_pid(text: str) -> int:
    """
    Return the number of a process.

    :raises UsageError: If it is none.
    """
    if not re.fullmatch("[1-9][0-9]{0,9}", text):
        raise UsageError(f"pid:{text[:40]}: names no process, expected pid:PID")
    return int(text)


def _open_file(
    file: OpenFile, info: VmcoreInfo | None, memory_map: str | None, damaged: bool
) -> Target:
    head = file.read(0, 8192)
    opener: Callable[[OpenFile, VmcoreInfo | None, bool], Target] | None = None
    if head.startswith(RAWDUMP_MAGIC):
        from kmemdump.firmware_dumps.rawdump import collect_rawdump
        from kmemdump.firmware_dumps.target import DumpTarget

        target = DumpTarget(collect_rawdump(file), info)
        file.close()
        return target
    if head.startswith(b"\x7fELF"):
        opener = open_elf
    elif head.startswith((KDUMP_MAGIC, FLAT_MAGIC)):
        from kmemdump.targets.kdump import open_kdump

        opener = open_kdump
    elif head.startswith(LIME_MAGIC):
        opener = open_lime
    # With a memory map, the user says that it is a raw RAM image.
    if opener is open_elf or (opener is None and memory_map is None):
        unsupported = describe_unsupported(head)
        if unsupported is not None:
            raise TargetError(f"{file.name}: {unsupported}")
    if opener is None:
        return open_image(file, memory_map, info)
    _refuse_map(memory_map, file.name, "not a raw RAM image: it has its memory map")
    return opener(file, info, damaged)


def _refuse_map(memory_map: str | None, name: str, reason: str) -> None:
    if memory_map is not None:
        raise UsageError(f"{name}: --memory-map is not allowed ({reason})")
