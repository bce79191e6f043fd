# SPDX-License-Identifier: GPL-2.0-or-later
"""
The output of QEMU's ``info registers -a``, as the notes that QEMU's dumps have.

For VMs of libvirt: the daemon of 9.0 dies of the event that ends a dump
(DUMP_COMPLETED) if it did not ask for the dump itself.
"""

from __future__ import annotations

import re

from kmemdump.arch.architecture import Arch, pack_prstatus
from kmemdump.errors import FormatError, TargetError
from kmemdump.formats.elf import NT_PRSTATUS, Note
from kmemdump.targets.qmp_channel import QmpChannel

__all__ = ["belongs_to_libvirt", "parse_registers"]

_MAX_CPUS = 4096
_MAX_TEXT = 1 << 16
"""Characters for a CPU; QEMU prints up to 6,000."""
_LIBVIRT = "charmonitor"
"""libvirt's name for its own monitor."""
_CPU = re.compile(r"^CPU#\d+\s*$", re.M)
# A segment has its base behind its selector.
_REGISTER = re.compile(r"\b([A-Z][A-Z0-9]+) *=([0-9a-f]{1,16})\b(?: ([0-9a-f]{16})\b)?")


def belongs_to_libvirt(client: QmpChannel) -> bool:
    """Return whether libvirt is connected to the VM, too."""
    try:
        answer = client.execute("query-chardev")
    except TargetError:  # QEMU is old, or going away, which the next call reports.
        return False
    return isinstance(answer, list) and any(
        isinstance(item, dict) and item.get("label") == _LIBVIRT for item in answer
    )


def parse_registers(text: str, arch: Arch, source: str) -> list[Note]:
    """
    Return a note NT_PRSTATUS for each CPU, as QEMU's dumps have it.

    :param source: Name of the VM, for messages.
    :raises FormatError: If registers are missing, as in 32-bit mode.
    """
    parts = _CPU.split(text)[1:][:_MAX_CPUS]
    if not parts:
        raise FormatError(source, "info registers: no CPU in the answer")
    return [
        Note("CORE", NT_PRSTATUS, _prstatus(part[:_MAX_TEXT], number, arch, source))
        for number, part in enumerate(parts, 1)
    ]


def _prstatus(text: str, number: int, arch: Arch, source: str) -> bytes:
    values: dict[str, int] = {}
    for name, value, base in _REGISTER.findall(text):
        values.setdefault(name, int(value, 16))
        if base:
            values.setdefault(f"{name}.base", int(base, 16))
    try:
        return pack_prstatus(arch, number, values)
    except KeyError as error:
        raise FormatError(
            source,
            f"info registers: CPU {number - 1} has no {error}, expected 64-bit mode",
        ) from None
