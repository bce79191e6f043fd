# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump mark --backend kinfo``."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, closing
from pathlib import Path

import click

from kmemdump.cli.shared.agent_output import held_table
from kmemdump.cli.shared.json_records import refusal_record
from kmemdump.cli.shared.log_output import held_back_warnings
from kmemdump.cli.shared.messages import tell
from kmemdump.errors import ExitCode
from kmemdump.memory.ranges import Range

__all__ = ["mark_kinfo"]


def mark_kinfo(
    spec: str,
    where: Range | None,
    tree: Path | None,
    layout: str,
    vmlinux: Path | None,
    *,
    off: bool,
    as_json: bool,
) -> int:
    """
    Write a kinfo into a machine's memory, or take it away.

    :param where: Its place, if it is not the device tree's.
    """
    from kmemdump.backends.kinfo import KinfoBackend, erase_kinfo
    from kmemdump.firmware.discovery import find_kinfo_range
    from kmemdump.formats.kinfo import KinfoLayout, fields_of
    from kmemdump.kernel.attach import attach
    from kmemdump.kernel.kinfo import kinfo_facts, kinfo_regions
    from kmemdump.marking.registration import check_reserved
    from kmemdump.marking.registry import Registry
    from kmemdump.opening import open_target
    from kmemdump.targets.live import LiveTarget
    from kmemdump.targets.writable import check_writable, open_writable

    chosen = KinfoLayout(layout)
    with ExitStack() as stack:
        stack.enter_context(held_back_warnings())
        machine = stack.enter_context(closing(open_target(spec)))
        check_writable(machine)
        searched = None if isinstance(machine, LiveTarget) else machine.memory
        place = where or find_kinfo_range(searched, machine.name, tree)
        stack.enter_context(held_table(machine.name, "kinfo", place.start, os.environ))
        if off:
            with closing(open_writable(machine, [place])) as memory:
                erase_kinfo(memory, place)
            gone = "there is no kinfo any more"
            if as_json:
                _print_json(machine.name, text=gone)
            else:
                click.echo(f"{machine.name}: {gone}")
            return ExitCode.DONE
        kernel = attach(machine, vmlinux=vmlinux)
        check_reserved(kernel, [place])
        with closing(open_writable(machine, [place])) as memory:
            backend = KinfoBackend(memory, place, kinfo_facts(kernel, chosen))
            registry = Registry(machine.memory.ranges)
            registry.attach(backend)
            result = registry.update(kinfo_regions(kernel, chosen))
    told = {region.name for region in result.added}
    missing = set(fields_of(chosen)) - told
    if "kallsyms_relative_base" in told:
        missing.discard("kallsyms_addresses")  # A kernel has one or the other.
    status = ExitCode.INCOMPLETE if missing else ExitCode.DONE
    if as_json:
        _print_json(
            machine.name,
            kinfo=hex(place.start),
            layout=chosen.value,
            addresses={region.name: hex(region.address) for region in result.added},
            refused=[refusal_record(refusal) for refusal in result.refused],
            missing=sorted(missing),
        )
        return status
    click.echo(f"kinfo at {place.start:#x}: {len(result.added)} addresses")
    for refusal in result.refused:
        tell(f"{refusal.region.name}: {refusal.reason}")
    for name in sorted(missing):
        tell(f"the kernel does not tell where {name} is")
    return status


def _print_json(target: str, **record: object) -> None:
    click.echo(json.dumps({"version": 1, "target": target, **record}, indent=2))
