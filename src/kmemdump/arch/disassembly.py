# SPDX-License-Identifier: GPL-2.0-or-later
"""Machine code as assembly, with capstone (an extra: ``disassembly``)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kmemdump.errors import UnsupportedError
from kmemdump.installing import describe_extra

__all__ = ["Decoded", "disassemble", "disassemble_around"]

_LONGEST = 15
"""Bytes of the longest instruction, on x86."""
_WORDS = ("aarch64", "armv7l")
"""Machines whose instructions all have 4 bytes."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """One instruction."""

    address: int
    code: bytes
    text: str | None
    """``None`` if these bytes are no instruction."""


def disassemble(machine: str, code: bytes, address: int) -> list[Decoded]:
    """
    Disassemble machine code.

    :param machine: As ``uname -m`` prints it.
    :param address: Virtual address of the first byte.
    :raises UnsupportedError: If capstone is not installed, or does not know *machine*.
    """
    return list(_decode(_engine(machine), machine, code, address))


def disassemble_around(
    machine: str, code: bytes, address: int, failed: int
) -> list[Decoded]:
    """
    Disassemble code, so that one instruction begins at a given offset.

    On x86, where instructions begin cannot be known from the bytes before: the first
    start is taken from which they lead to the instruction that failed.

    :param failed: Offset in *code* of that instruction.
    :raises UnsupportedError: As :func:`disassemble`.
    """
    engine = _engine(machine)
    after = list(_decode(engine, machine, code[failed:], address + failed))
    step = 4 if machine in _WORDS else 1
    for start in range(failed % step, min(failed, _LONGEST) + 1, step):
        before = list(_decode(engine, machine, code[start:failed], address + start))
        if all(item.text is not None for item in before):
            return before + after
    return after


def _decode(engine: Any, machine: str, code: bytes, address: int) -> Iterator[Decoded]:
    at = 0
    while at < len(code):
        for item in engine.disasm_lite(code[at:], address + at):
            start, size, name, operands = item
            at = start - address + size
            text = f"{name} {operands}".strip()
            yield Decoded(start, code[at - size : at], text)
        if at < len(code):
            size = 4 if machine in _WORDS else 2 if machine == "riscv64" else 1
            yield Decoded(address + at, code[at : at + size], None)
            at += size


def _engine(machine: str) -> Any:
    try:
        import capstone
    except ImportError as error:
        raise UnsupportedError(
            f"disassembly needs capstone: {describe_extra('disassembly')}"
        ) from error
    little = capstone.CS_MODE_LITTLE_ENDIAN
    known = {
        "x86_64": (capstone.CS_ARCH_X86, capstone.CS_MODE_64),
        "i686": (capstone.CS_ARCH_X86, capstone.CS_MODE_32),
        "aarch64": (capstone.CS_ARCH_ARM64, little),
        "armv7l": (capstone.CS_ARCH_ARM, little),
        "riscv64": (
            capstone.CS_ARCH_RISCV,
            capstone.CS_MODE_RISCV64 | capstone.CS_MODE_RISCVC,
        ),
    }
    if machine not in known:
        raise UnsupportedError(f"no disassembly for {machine}")
    return capstone.Cs(*known[machine])
