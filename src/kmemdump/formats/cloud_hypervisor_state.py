# SPDX-License-Identifier: GPL-2.0-or-later
"""
The registers of CPUs in ``state.json`` of a Cloud Hypervisor snapshot (x86-64).

It is a tree of components: each has its own state, JSON in a string or in a list of
bytes, and further components by their names (vm-migration/src/lib.rs). The component
``cpu-manager`` has one for each CPU. The state of a CPU has ``regs`` and ``sregs``
(hypervisor/src/kvm/x86_64/mod.rs), as lists of bytes since kvm-bindings 0.9, and before
by the names of their members.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator

from kmemdump.errors import FormatError
from kmemdump.formats.kvm_state import KvmCpu, parse_cpu

__all__ = ["parse_state"]

_CPUS = "cpu-manager"
_MAX_DEPTH = 8
_MAX_CPUS = 4096
# fmt: off
_REGS = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", "r8", "r9", "r10", "r11",
    "r12", "r13", "r14", "r15", "rip", "rflags",
)
# fmt: on
_SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")
_CONTROL = ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base")


def parse_state(data: bytes, source: str) -> list[KvmCpu]:
    """
    Return the CPUs in ``state.json``, in their order.

    :raises FormatError: If it is no such file, or has no CPU in 64-bit mode.
    """
    components = _member(_load(data, source), "snapshots")
    cpus = _member(_member(components, _CPUS), "snapshots")
    if not isinstance(cpus, dict) or not cpus:
        raise FormatError(source, f"no CPUs, expected a snapshot with {_CPUS}")
    numbered = []
    for name, cpu in list(cpus.items())[:_MAX_CPUS]:
        match = re.search(r"[0-9]{1,4}$", name)
        if match is None:
            raise FormatError(source, f"a CPU named {name[:40]!r}, expected a number")
        numbered.append((int(match[0]), cpu))
    return [
        _parse_cpu(cpu, f"{source}, CPU {number}")
        for number, cpu in sorted(numbered, key=lambda item: item[0])
    ]


def _parse_cpu(component: object, where: str) -> KvmCpu:
    for state in _states(_member(component, "snapshot_data"), where, _MAX_DEPTH):
        regs, sregs = _member(state, "regs"), _member(state, "sregs")
        if regs is not None and sregs is not None:
            try:
                return parse_cpu(_pack_regs(regs), _pack_sregs(sregs), where)
            except (KeyError, TypeError, ValueError, struct.error) as error:
                raise FormatError(where, f"registers in no known form: {error}") from (
                    error
                )
    raise FormatError(where, "no registers of KVM")


def _states(value: object, where: str, depth: int) -> Iterator[object]:
    """Yield objects that may be a CPU's state; some are JSON in a string."""
    if depth == 0:
        return
    if isinstance(value, str | list):
        # JSON may have halves of surrogate pairs, which no encoding has.
        text = (
            value.encode("utf-8", "replace")
            if isinstance(value, str)
            else _bytes(value)
        )
        if text.lstrip()[:1] == b"{":
            yield from _states(_load(text, where), where, depth - 1)
    elif isinstance(value, dict):
        yield value
        for item in value.values():
            if not isinstance(item, list) or len(item) > 1:
                yield from _states(item, where, depth - 1)


def _load(data: bytes, source: str) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(source, f"not JSON: {str(error)[:80]}") from error


def _member(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None


def _bytes(value: list[object]) -> bytes:
    if all(isinstance(item, int) and 0 <= item < 256 for item in value):
        return bytes(item for item in value if isinstance(item, int))
    return b""


def _pack_regs(value: object) -> bytes:
    if isinstance(value, dict):
        # With several hypervisors, in an enumeration: {"Kvm": {…}}.
        value = value.get("Kvm", value)
    if isinstance(value, dict):
        return struct.pack(f"<{len(_REGS)}Q", *(value[name] for name in _REGS))
    return _bytes(value) if isinstance(value, list) else b""


def _pack_sregs(value: object) -> bytes:
    if not isinstance(value, dict):
        return _bytes(value) if isinstance(value, list) else b""
    segments = b"".join(
        struct.pack("<QIH10x", it["base"], it["limit"], it["selector"])
        for it in (value[name] for name in _SEGMENTS)
    )
    tables = b"".join(
        struct.pack("<QH6x", it["base"], it["limit"])
        for it in (value["gdt"], value["idt"])
    )
    control = struct.pack("<7Q32x", *(value[name] for name in _CONTROL))
    return segments + tables + control
