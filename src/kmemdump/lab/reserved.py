# SPDX-License-Identifier: GPL-2.0-or-later
"""
Memory that a guest's kernel leaves alone, and what its boot firmware puts there.

x86_64 gets it on the command line, aarch64 in a device tree, as on a phone.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from kmemdump.firmware.device_tree import KINFO, SCRATCH, SMEM
from kmemdump.formats.fdt import Node, parse_fdt
from kmemdump.lab.architectures import Architecture
from kmemdump.lab.commands import run
from kmemdump.lab.fdt_writer import pack_fdt
from kmemdump.memory.ranges import Range

__all__ = [
    "add_reserved_memory",
    "boot_smem",
    "dump_device_tree",
    "kinfo_range",
    "lock_range",
    "reserved_arguments",
    "reserved_range",
    "scratch_range",
    "smem_range",
]

_OFFSET = 0x30000000
"""From the start of RAM: in the middle of the smallest guest that has it."""
_MIB = 1 << 20
_SMEM_SIZE = 2 * _MIB
_SCRATCH_SIZE = 64 << 10
_KINFO_SIZE = 4096


def reserved_range(architecture: Architecture) -> Range:
    """Return all reserved memory: 4 MiB."""
    return Range(architecture.ram + _OFFSET, 4 * _MIB)


def smem_range(architecture: Architecture) -> Range:
    """Return where SMEM is."""
    return Range(reserved_range(architecture).start, _SMEM_SIZE)


def scratch_range(architecture: Architecture) -> Range:
    """Return the memory that is a backend's own."""
    return Range(smem_range(architecture).end, _SCRATCH_SIZE)


def kinfo_range(architecture: Architecture) -> Range:
    """Return the place of Android's ``debug_kinfo``."""
    return Range(scratch_range(architecture).end, _KINFO_SIZE)


def lock_range(architecture: Architecture) -> Range:
    """Return the memory that stands for the hardware's locks."""
    return Range(smem_range(architecture).start + 3 * _MIB, _LOCK_SIZE)


def reserved_arguments(architecture: Architecture) -> tuple[str, ...]:
    """Return the arguments that a kernel needs if there is no device tree."""
    if architecture.device_tree:
        return ()
    return (f"memmap=4M${reserved_range(architecture).start:#x}",)


def dump_device_tree(qemu: str, arguments: Sequence[str], path: Path) -> None:
    """
    Have QEMU write the device tree of a machine.

    :param arguments: QEMU's arguments for the machine; the first is ``-machine``'s.
    :raises UnsupportedError: If QEMU does not write it.
    """
    machine = f"{arguments[0]},dumpdtb={str(path).replace(',', ',,')}"
    run(qemu, "-machine", machine, *arguments[1:])


def add_reserved_memory(path: Path, architecture: Architecture) -> None:
    """Add the reserved memory to a device tree, with a node for each purpose."""
    root = parse_fdt(path.read_bytes(), str(path))
    memory = Node("reserved-memory", {**_WIDE, "ranges": b""})
    for name, where, compatible in (
        ("smem", smem_range(architecture), SMEM),
        ("kmemdump", scratch_range(architecture), SCRATCH),
        ("kinfo", kinfo_range(architecture), KINFO),
    ):
        properties = {
            "compatible": compatible.encode() + b"\0",
            "reg": struct.pack(">2Q", where.start, where.size),
            "no-map": b"",
        }
        memory.children.append(Node(f"{name}@{where.start:x}", properties))
    root.children.append(memory)
    _add_lock(root, memory, architecture)
    path.write_bytes(pack_fdt(root))


def _add_lock(root: Node, memory: Node, architecture: Architecture) -> None:
    """
    Add the lock that Linux's driver takes while it allocates in SMEM.

    Plain memory is enough: the driver writes its number, and reads the owner's back.
    """
    where = lock_range(architecture)
    reg = struct.pack(">2Q", where.start, where.size)
    memory.children.append(Node(f"lock@{where.start:x}", {"reg": reg, "no-map": b""}))
    handles = [node.cells("phandle") for node in root.walk()]
    handle = max((cells[0] for cells in handles if cells), default=0) + 1
    properties = {
        "compatible": b"qcom,tcsr-mutex\0",
        "reg": reg,
        "#hwlock-cells": struct.pack(">I", 1),
        "phandle": struct.pack(">I", handle),
    }
    root.children.append(Node(f"hwlock@{where.start:x}", properties))
    smem = memory.child("smem")
    assert smem is not None
    smem.properties["hwlocks"] = struct.pack(">2I", handle, _LOCK)


_LOCK = 3
"""The lock that all phones use for it."""
_LOCK_SIZE = 256 << 10

_WIDE = {
    "#address-cells": struct.pack(">I", 2),
    "#size-cells": struct.pack(">I", 2),
}

_GLOBAL = 0xFFFE
_PARTITION_AT, _PARTITION_SIZE = 0x4000, 0x40000
_SUBSYSTEMS = 10


def boot_smem() -> bytes:
    """
    Return SMEM as boot firmware leaves it for Linux: the smallest that drivers accept.

    Version 12, one global partition, and in it item 602: an empty minidump table that
    is ready.
    """
    data = bytearray(_SMEM_SIZE)
    struct.pack_into("<I", data, 0x5C, 12 << 16)
    struct.pack_into("<4I", data, 0xC0, 1, 0x20D0, 0, 0)
    table = bytearray(16 + 32 * _SUBSYSTEMS)
    struct.pack_into("<3I", table, 0, 1, 1, 1)  # Status, revision, enabled.
    item = struct.pack("<HHIHHI", 0xA5A5, 602, len(table), 0, 0, 0) + table
    struct.pack_into(
        "<4sHHIII",
        data,
        _PARTITION_AT,
        b"$PRT",
        _GLOBAL,
        _GLOBAL,
        _PARTITION_SIZE,
        32 + len(item),
        _PARTITION_SIZE,
    )
    data[_PARTITION_AT + 32 : _PARTITION_AT + 32 + len(item)] = item
    toc = _SMEM_SIZE - 4096
    struct.pack_into("<4sII", data, toc, b"$TOC", 1, 1)
    struct.pack_into(
        "<IIIHHI",
        data,
        toc + 32,
        _PARTITION_AT,
        _PARTITION_SIZE,
        0,
        _GLOBAL,
        _GLOBAL,
        32,
    )
    struct.pack_into("<4sIIIH", data, toc + 80, b"SIII", _SMEM_SIZE, 0, 0, 700)
    return bytes(data)
