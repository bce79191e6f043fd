# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine of the lab with firmware: where its memory is, and what is registered."""

import json

from kmemdump.lab import Machine
from kmemdump.lab.reserved import scratch_range
from rigs.programs import run_kmemdump

__all__ = ["places", "registered"]


def places(machine: Machine) -> tuple[str, ...]:
    """Return options for reserved memory, where no device tree gives it."""
    if machine.setup.architecture.device_tree:
        return ()
    where = scratch_range(machine.setup.architecture)
    return ("--scratch", f"{where.start:#x}:{where.size:#x}")


def registered(machine: Machine) -> list[dict[str, object]]:
    listed = run_kmemdump("regions", f"qmp:{machine.qmp}", "--json")
    rows: list[dict[str, object]] = json.loads(listed.stdout)["regions"]
    return rows
