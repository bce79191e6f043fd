# SPDX-License-Identifier: GPL-2.0-or-later
"""
Check this machine: what its firmware or crash kernel would have if its kernel died now.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from kmemdump.agent.status import Status, read_all
from kmemdump.backends.kdump import KdumpBackend
from kmemdump.checks.crash_kernel import check_crash_kernel
from kmemdump.checks.disk import check_disk
from kmemdump.checks.findings import Findings
from kmemdump.checks.kernel import check_kernel, check_questions
from kmemdump.checks.point import Point, Rehearsal, missing, ok, warning
from kmemdump.checks.rehearsal import Written, rehearse
from kmemdump.checks.wanted import Wanted
from kmemdump.collect.source import Options, read_registered
from kmemdump.errors import KmemdumpError
from kmemdump.firmware.minidump_table import MinidumpTable
from kmemdump.formats.minidump import LINUX_ROWS
from kmemdump.marking.capture import Capture, look
from kmemdump.marking.plan import DESCRIPTION, plan
from kmemdump.targets.live import LiveTarget
from kmemdump.text import format_duration, format_memory, format_size, printable

__all__ = ["check_this_machine"]

_OUTSIDE = "if this machine is a VM, check it from its host: kmemdump check qmp:SOCKET"
_START = "start it: kmemdump mark live --daemon, or the unit kmemdump.service"


def check_this_machine(target: LiveTarget, wanted: Wanted, findings: Findings) -> None:
    """
    Check the machine that we run on; nothing is written to its memory.

    :raises KmemdumpError: If its kernel cannot be looked at.
    """
    size = format_memory(sum(item.size for item in target.memory.ranges))
    findings.add(ok("memory", f"{size}, /proc/kcore can be read"))
    capture = look(target, wanted.selection, packing=True)
    findings.release = capture.kernel.vmcoreinfo.osrelease
    findings.add(*check_kernel(capture))
    rehearsed = rehearse(partial(_write, capture, wanted), wanted.folder)
    findings.core = rehearsed.core
    findings.add(
        check_questions(capture, rehearsed.inspection, with_registers=False),
        *rehearsed.points,
        *_check_agent(wanted.run_folder, capture),
    )
    if wanted.folder is not None:
        findings.add(check_disk(wanted, rehearsed.core))


def _write(capture: Capture, wanted: Wanted, path: Path, reader: str | None) -> Written:
    start = time.monotonic()
    lacking = capture.save(path, seal=wanted.seal_for(reader))
    seconds = time.monotonic() - start
    core = Rehearsal(path.stat().st_size, seconds, seconds)
    return Written(core, len(lacking), None)


def _check_table(capture: Capture) -> Point:
    """Check the firmware's table, without opening it for writing."""
    name = "firmware"
    try:
        table = read_registered("live", Options())
    except KmemdumpError as error:
        return missing(name, _line(error), _OUTSIDE)
    if not isinstance(table, MinidumpTable):
        return ok(name, "a kinfo")
    rows = len(table.regions)
    text = f"{table.source}: {rows} rows are registered"
    if table.toc is not None and table.toc.status == 0:
        return missing(name, f"{text}; the firmware is not ready for minidumps")
    planned = plan(
        capture.marking, max(LINUX_ROWS - DESCRIPTION, 0), capture.memory.ranges
    )
    if planned.left_out:
        names = ", ".join(area.result.name for area in planned.left_out)
        return missing(
            name, f"{text}; no room for areas {names}", "name fewer areas with --area"
        )
    if table.subsystem is not None and not table.subsystem.is_plain:
        return warning(
            name,
            f"{text}; the firmware may encrypt the dump, or refuse it",
            "kmemdump mark live --no-encryption",
        )
    return ok(name, text)


def _check_agent(folder: Path | None, capture: Capture) -> list[Point]:
    """Check that an agent keeps the regions registered with the firmware, and fresh."""
    name = "agent"
    try:
        found = read_all(folder) if folder is not None else []
    except KmemdumpError as error:
        return [_check_table(capture), missing(name, _line(error), _START)]
    found = [status for status in found if status.target == "live"]
    alive = [status for status in found if status.alive]
    if alive:
        holder = alive[0]
        if f"-{KdumpBackend.name}-" in holder.table:
            points = check_crash_kernel(capture.memory, holder.table)
        else:
            points = [ok("firmware", holder.table)]
        return [*points, _judge(holder)]
    gone = f"; process {found[0].pid} is gone" if found else ""
    text = f"none keeps regions registered{gone}"
    return [_check_table(capture), missing(name, text, _START)]


def _judge(status: Status) -> Point:
    name = "agent"
    now = time.time()
    age = max(now - status.marked, 0)
    text = (
        f"process {status.pid} holds {status.regions} regions, "
        f"{format_size(status.bytes)}, looked at {format_duration(age)} ago"
    )
    if status.failure:
        return missing(name, f"{text}; the last look failed: {status.failure}")
    if status.is_late(now):
        return missing(name, f"{text}, every {format_duration(status.interval)}: late")
    if status.problems:
        return missing(name, f"{text}; {'; '.join(status.problems)}")
    return ok(name, text)


def _line(error: Exception) -> str:
    return printable(str(error).partition("\n")[0])
