# SPDX-License-Identifier: GPL-2.0-or-later
"""Measure how long programs take to say what happened, of what a dead kernel left."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Cost, run
from benchmarks.scene import KMEMDUMP

__all__ = ["KDUMP", "MARKED", "PSTORE", "Summary", "measure_summaries"]

KDUMP = "kdump, makedumpfile -c -d 31"
MARKED = "kdump, what is marked"
PSTORE = "pstore, ramoops"

_HOTKDUMP = "/usr/bin/python3"
"""It needs ubuntutools, which only distributions have."""


@dataclass(frozen=True, slots=True)
class Summary:
    """How long a program takes to say what happened."""

    name: str
    of: str
    """Name of what left the file."""
    cost: Cost


def measure_summaries(
    folder: Path, vmlinux: Path, hotkdump: Path | None
) -> Iterator[Summary]:
    """
    Yield them.

    :param folder: With ``kdump.vmcore``, ``core.elf`` and ``pstore.txt``.
    :param hotkdump: Its source, if it is here.
    """
    core, dump = folder / "core.elf", folder / "kdump.vmcore"
    for name, of, path in (
        ("kmemdump report", MARKED, core),
        ("kmemdump report", KDUMP, dump),
        ("kmemdump report, of the log", PSTORE, folder / "pstore.txt"),
    ):
        yield Summary(name, of, run([*KMEMDUMP, "report", path]))
    typed = "sys\nlog\nbt\nps\nquit\n"
    plain = {"HOME": "/nonexistent", "TERM": "dumb"}
    cost = run(["crash", "-s", vmlinux, dump], stdin=typed, environment=plain)
    yield Summary("crash: sys, log, bt, ps", KDUMP, cost)
    if hotkdump is not None:
        yield Summary("hotkdump", KDUMP, _run_hotkdump(hotkdump, dump, vmlinux))


def _run_hotkdump(source: Path, dump: Path, vmlinux: Path) -> Cost:
    """Let it summarize a dump, with a vmlinux that it need not download."""
    summary = dump.with_name("hotkdump")
    shutil.rmtree(summary, ignore_errors=True)
    argv: list[str | Path] = ["env", "-C", source, _HOTKDUMP, "hotkdump/main.py"]
    argv += ["-d", dump.absolute(), "-s", summary.absolute(), "--debug-file", vmlinux]
    plain = {"HOME": "/nonexistent", "TERM": "dumb"}
    cost = run(argv, environment=plain)
    # It passes over it if crash cannot open the dump.
    made = any(it.stat().st_size for it in summary.glob("crash/*"))
    shutil.rmtree(summary, ignore_errors=True)
    if not cost.problem and not made:
        return Cost(cost.wall, cost.cpu, problem="no summary")
    return cost
