# SPDX-License-Identifier: GPL-2.0-or-later
"""
State files of snapshots, as Firecracker and Cloud Hypervisor define them.

Made of the definitions: neither monitor was at hand.
"""

import json
import struct
from collections.abc import Sequence

__all__ = ["NAMES", "write_cloud_hypervisor", "write_firecracker"]

# fmt: off
NAMES = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", "r8", "r9", "r10", "r11",
    "r12", "r13", "r14", "r15", "rip", "rflags",
)
# fmt: on
_SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")
_SELECTORS = {"cs": 0x10, "ss": 0x18}


def _regs(number: int) -> dict[str, int]:
    values = {name: number << 32 | i for i, name in enumerate(NAMES)}
    return values | {"rflags": 0x246, "rip": 0xFFFFFFFF81000000 + number}


def _segments(number: int) -> dict[str, dict[str, int]]:
    found = {}
    for name in _SEGMENTS:
        base = 0xFFFF888000000000 + number if name == "gs" else 0
        found[name] = {
            "base": base,
            "limit": 0xFFFFFFFF,
            "selector": _SELECTORS.get(name, 0),
            **dict.fromkeys(("type_", "present", "dpl", "db", "s", "l", "g", "avl"), 1),
            "unusable": 0,
            "padding": 0,
        }
    return found


def _sregs(number: int) -> dict[str, object]:
    return {
        **_segments(number),
        "gdt": {"base": 0xFFFFFE0000001000, "limit": 127, "padding": [0, 0, 0]},
        "idt": {"base": 0xFFFFFE0000000000, "limit": 4095, "padding": [0, 0, 0]},
        "cr0": 0x80050033,
        "cr2": 0,
        "cr3": 0x12345000 + number,
        "cr4": 0x3506F0,
        "cr8": 0,
        "efer": 0xD01,
        "apic_base": 0xFEE00D00,
        "interrupt_bitmap": [0, 0, 0, 0],
    }


def _packed(number: int) -> tuple[bytes, bytes]:
    """Return the structures as C has them."""
    regs = struct.pack("<18Q", *_regs(number).values())
    sregs = b"".join(
        struct.pack("<QIH", it["base"], it["limit"], it["selector"])
        + b"\1" * 8
        + b"\0\0"
        for it in _segments(number).values()
    )
    sregs += struct.pack("<QH6xQH6x", 0xFFFFFE0000001000, 127, 0xFFFFFE0000000000, 4095)
    control = (0x80050033, 0, 0x12345000 + number, 0x3506F0, 0, 0xD01, 0xFEE00D00)
    return regs, sregs + struct.pack("<7Q", *control) + bytes(32)


def _sequence(data: bytes) -> bytes:
    """Write bytes as bincode does."""
    return struct.pack("<Q", len(data)) + data


def write_firecracker(cpus: int, *, arch: str = "x86_64") -> bytes:
    """Return the state file of a snapshot."""
    magic = {"x86_64": 0x07101984_86640000, "aarch64": 0x07101984_AAAA0000}[arch]
    out = struct.pack("<Q", magic) + _sequence(b"8.0.0")
    out += struct.pack("<QB", 128, 0) + _sequence(b"/vmlinux")  # vm_info
    out += struct.pack("<QQQ", 1, 0, 128 << 20)  # memory_state
    out += struct.pack("<Q", cpus)
    for number in range(cpus):
        regs, sregs = _packed(number)
        out += _sequence(bytes(40 * 30)) + struct.pack("<Q", 1) + _sequence(bytes(64))
        for part in (bytes(128), bytes(1024), struct.pack("<I", 3), regs, sregs):
            out += _sequence(part)
        out += _sequence(bytes(64)) + _sequence(bytes(392)) + b"\1" + bytes(4)
    return out + _sequence(b"devices") + bytes(8)


def write_cloud_hypervisor(
    cpus: int, *, form: str = "bytes", names: Sequence[str] | None = None
) -> bytes:
    """
    Return ``state.json``.

    :param form: ``bytes``: structures as lists of bytes; ``members``: by their names;
        ``sections``: of an older release, with states as lists of bytes.
    """
    components: dict[str, object] = {}
    for number in range(cpus):
        name = names[number] if names else str(number)
        regs: object = _regs(number)
        sregs: object = _sregs(number)
        if form == "bytes":
            regs, sregs = (list(it) for it in _packed(number))
        cpu = {"cpuid": [], "msrs": [], "regs": regs, "sregs": sregs, "xsave": [0] * 9}
        state = json.dumps({"Kvm": cpu})
        if form == "sections":
            data = {"id": f"{name}-section", "snapshot": list(state.encode())}
            holder: object = {f"{name}-section": data}
        else:
            holder = {"state": state}
        components[name] = {"snapshots": {}, "snapshot_data": holder}
    empty: dict[str, object] = {"snapshots": {}, "snapshot_data": None}
    return json.dumps(
        {
            "snapshots": {
                "cpu-manager": {"snapshots": components, "snapshot_data": None},
                "memory-manager": empty,
                "device-manager": empty,
            },
            "snapshot_data": {"state": "{}"},
        }
    ).encode()
