# SPDX-License-Identifier: GPL-2.0-or-later
"""
The registers of CPUs in the state file of a Firecracker snapshot (x86-64).

The file is a magic number, a version as text, the state and a checksum, written by the
Rust library bincode: numbers are little-endian, and a sequence has its length before it
as 8 bytes (src/vmm/src/snapshot/mod.rs of Firecracker 1.8 and later). What is before
the CPUs differs between versions. KVM's structures are written as sequences of bytes;
of a CPU, ``kvm_regs`` and ``kvm_sregs`` follow ``kvm_mp_state``
(src/vmm/src/arch/x86_64/vcpu.rs), and no other three lengths do so.
"""

from __future__ import annotations

import re
import struct

from kmemdump.errors import FormatError
from kmemdump.formats.kvm_state import REGS_SIZE, SREGS_SIZE, KvmCpu, parse_cpu

__all__ = ["parse_state"]

_MAGIC = 0x0710_1984_8664_0000
_ARM_MAGIC = 0x0710_1984_AAAA_0000
_HEAD = struct.Struct("<QQ")
_MAX_VERSION = 32
_LENGTH = struct.Struct("<Q")
_MP_STATE_SIZE = 4
_CPU = re.compile(
    re.escape(_LENGTH.pack(_MP_STATE_SIZE))
    + rb"[\0-\x0a]\0{3}"
    + re.escape(_LENGTH.pack(REGS_SIZE))
    + b"(.{%d})" % REGS_SIZE
    + re.escape(_LENGTH.pack(SREGS_SIZE))
    + b"(.{%d})" % SREGS_SIZE,
    re.DOTALL,
)
_MAX_CPUS = 4096


def parse_state(data: bytes, source: str) -> list[KvmCpu]:
    """
    Return the CPUs in the state file of a snapshot, in their order.

    :raises FormatError: If it is no such file, or has no CPU in 64-bit mode.
    """
    if len(data) < _HEAD.size:
        raise FormatError(source, f"{len(data)} bytes, expected a Firecracker snapshot")
    magic, length = _HEAD.unpack_from(data)
    if magic == _ARM_MAGIC:
        raise FormatError(source, "a snapshot of aarch64, whose registers are not read")
    if magic != _MAGIC:
        raise FormatError(source, f"starts with {magic:#x}, expected {_MAGIC:#x}")
    version = data[_HEAD.size : _HEAD.size + length] if length <= _MAX_VERSION else b""
    if not re.fullmatch(rb"[0-9]{1,5}(\.[0-9]{1,5}){2}[0-9A-Za-z.+-]*", version):
        raise FormatError(source, "has no version, expected Firecracker 1.8 or later")
    found = [
        parse_cpu(match[1], match[2], f"{source}, CPU {number}")
        for number, match in zip(range(_MAX_CPUS), _CPU.finditer(data), strict=False)
    ]
    if not found:
        raise FormatError(source, f"version {version.decode()}: no CPU found in it")
    return found
