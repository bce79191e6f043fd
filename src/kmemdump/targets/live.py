# SPDX-License-Identifier: GPL-2.0-or-later
"""
This machine's own kernel, through /proc/kcore.

The kernel generates this ELF core when it is read: memory, and VMCOREINFO in a note.
Addresses and types are read from the memory itself, as for any other target, so
kptr_restrict hides nothing.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from kmemdump.coreimage.read import find_extents
from kmemdump.errors import FormatError, TargetError, UnsupportedError
from kmemdump.files import OpenFile
from kmemdump.formats.elf import parse_core
from kmemdump.kernel_search.notes import read_note
from kmemdump.memory.physical import FileMemory
from kmemdump.memory.ranges import flatten
from kmemdump.targets.file import FileTarget, noted_vmcoreinfo
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["NAME", "LiveTarget", "open_live"]

NAME = "live"

_CAP_SYS_RAWIO = 17  # Linux include/uapi/linux/capability.h.

_OUTSIDE = (
    "look at this kernel from outside: if this is a VM, with qmp:SOCKET on its host"
)


class LiveTarget(FileTarget):
    """The kernel that we run on."""


def open_live(
    vmcoreinfo: VmcoreInfo | None = None, root: Path = Path("/")
) -> LiveTarget:
    """
    Open this machine's kernel.

    :param vmcoreinfo: Used instead of the kernel's.
    :param root: The folder with ``proc`` and ``sys``.
    :raises UnsupportedError: If the kernel does not allow it, with advice.
    """
    kcore = root / "proc/kcore"
    try:
        if not stat.S_ISREG(kcore.stat().st_mode):
            # Container engines put /dev/null over it.
            raise UnsupportedError(
                f"{NAME}: {kcore} is masked, as in a container\n"
                "run kmemdump on the machine itself, or in a privileged container"
            )
        file = OpenFile(kcore)
    except FileNotFoundError:
        raise UnsupportedError(
            f"{NAME}: there is no {kcore} (CONFIG_PROC_KCORE is not set)\n{_OUTSIDE}"
        ) from None
    except TargetError as error:
        raise UnsupportedError(f"{NAME}: {_refusal(root, error)}") from error
    try:
        core = parse_core(file.read, file.size, file.name)
        extents = flatten(find_extents(core.headers, file.size, file.name))
        if not extents:
            raise UnsupportedError(
                f"{NAME}: {kcore} has no physical addresses (Linux before 4.19)\n"
                f"{_OUTSIDE}"
            )
        info = vmcoreinfo or noted_vmcoreinfo(core.notes, NAME)
        memory = FileMemory(file.detach(), extents, NAME)
    except BaseException:
        file.close()
        raise
    # Without the notes: their NT_PRSTATUS belongs to the process that opened the file.
    target = LiveTarget(NAME, core.machine, memory, (), info)
    if info is None:
        try:
            target = LiveTarget(NAME, core.machine, memory, (), _sysfs(target, root))
        except BaseException:
            target.close()
            raise
    return target


def _sysfs(target: LiveTarget, root: Path) -> VmcoreInfo:
    """Read the VMCOREINFO at the address in /sys/kernel/vmcoreinfo."""
    path = root / "sys/kernel/vmcoreinfo"
    try:
        line = path.read_text()
    except OSError as error:
        raise UnsupportedError(
            f"{NAME}: no VMCOREINFO in /proc/kcore, and {path}: {error.strerror}\n"
            "the kernel needs CONFIG_CRASH_CORE or CONFIG_VMCORE_INFO, or give the "
            "text with --vmcoreinfo FILE"
        ) from error
    match = re.fullmatch(r"(?:0x)?([0-9a-f]{1,16}) [0-9a-f]{1,8}\s*", line)
    if match is None:
        raise FormatError(str(path), f"{line[:40]!r}, expected an address and a size")
    info = read_note(target.memory, int(match[1], 16), NAME)
    if info is None:
        raise FormatError(str(path), f"no VMCOREINFO at 0x{match[1]}, where it points")
    return info


def _refusal(root: Path, error: TargetError) -> str:
    cause = error.__cause__
    if not isinstance(cause, PermissionError):
        return str(error)
    if os.geteuid() != 0:
        return "reading /proc/kcore needs root\nrun it with sudo"
    lockdown = _lockdown(root)
    if lockdown == "confidentiality":
        return (
            "the kernel is locked down (confidentiality), so its memory cannot be "
            "read\nboot with lockdown=integrity, or look from outside (qmp:SOCKET)"
        )
    if not _may_read(root):
        return (
            "reading /proc/kcore needs the capability CAP_SYS_RAWIO, which this "
            "process lacks\nin a container, run it with --privileged; in a unit, "
            "with AmbientCapabilities=CAP_SYS_RAWIO"
        )
    return f"/proc/kcore: {cause.strerror}, though we are root\nask the security module"


def _lockdown(root: Path) -> str | None:
    try:
        text = (root / "sys/kernel/security/lockdown").read_text()
    except OSError:
        return None
    chosen = re.search(r"\[(\w+)\]", text)
    return chosen[1] if chosen else None


def _may_read(root: Path) -> bool:
    try:
        status = (root / "proc/self/status").read_text()
        found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    except OSError:
        return True
    return found is None or bool(int(found[1], 16) >> _CAP_SYS_RAWIO & 1)
