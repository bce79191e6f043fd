# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump demo``."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from kmemdump.errors import ExitCode
from kmemdump.text import format_size

if TYPE_CHECKING:
    from kmemdump.report import Report

__all__ = ["command"]

_RECORDS = 15
"""Of the log, beside a report that has more of them."""


@click.command("demo")
@click.option(
    "-o",
    "--output",
    default="build/demo",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Where core.elf and report.txt are left.",
)
@click.option(
    "--kernel",
    "series",
    default="6.12",
    show_default=True,
    type=click.Choice(["6.1", "6.12"]),
    help="Debian's kernel to be tried on.",
)
@click.option(
    "--arch",
    type=click.Choice(["x86_64", "aarch64"]),
    help="The machine, as uname -m prints it: x86_64, or with firmware aarch64.",
)
@click.option(
    "--backend",
    default="vm",
    show_default=True,
    type=click.Choice(["vm", "minidump"]),
    help="Who keeps the marked memory: the VM's host, or a phone's firmware, played.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print JSON; the story goes to standard error.",
)
def command(
    output: Path, series: str, arch: str | None, backend: str, as_json: bool
) -> int:
    """
    Show the whole story in a VM: a kernel is marked, dies, and is asked.

    With --backend minidump, its regions are registered with firmware, which is played:
    it leaves files like a phone's, and a core image is made of those.

    Debian's kernel is downloaded if it is not there yet; QEMU must be installed.
    """
    from kmemdump.core import open_core
    from kmemdump.report import print_report

    output.mkdir(parents=True, exist_ok=True)
    screen = Console(highlight=False, stderr=as_json)

    def say(line: str) -> None:
        screen.print(f"[bold]==[/] {line}")

    tell = _tell if backend == "vm" else _tell_of_firmware
    told = tell(output, series, arch, say)
    with open_core(told.core) as core:
        report = core.report()
    path = output / "report.txt"
    with path.open("w", encoding="utf-8") as file:
        print_report(report, Console(file=file, width=100))
    if as_json:
        click.echo(json.dumps(_record(told, path, report), indent=2))
    else:
        print_report(report, Console(), most=_RECORDS)
        say(
            f"the whole report is in {path}; now ask more:\n"
            f"     {_program('kmemdump')} ask {told.core} ps 'bt 1' mount\n"
            f"     {_program('drgn')} -c {told.core}"
        )
    return ExitCode.DONE if told.complete else ExitCode.INCOMPLETE


_Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Told:
    """What came of a story."""

    core: Path
    complete: bool
    seconds: float
    """From the death, or from what firmware left, to a core image."""
    finished: float | None = None
    """Seconds until the dead kernel had been looked at again."""
    dump: Path | None = None
    """What firmware left."""


def _record(told: _Told, path: Path, report: Report) -> dict[str, object]:
    cause = report.cause
    return {
        "version": 1,
        "kernel": report.kernel.release,
        "machine": report.kernel.machine,
        "core": str(told.core),
        "size": told.core.stat().st_size,
        "complete": told.complete,
        "seconds": round(told.seconds, 6),
        "finished": None if told.finished is None else round(told.finished, 6),
        "dump": None if told.dump is None else str(told.dump),
        "report": str(path),
        "cause": {"kind": cause.kind, "sentence": cause.sentence, "cpu": cause.cpu},
    }


def _tell(output: Path, series: str, arch: str | None, say: _Say) -> _Told:
    from kmemdump.lab import PackageCache, default_folder, get_architecture
    from kmemdump.lab.demo import tell

    story = tell(
        output,
        PackageCache(default_folder(os.environ)),
        say,
        series=series,
        architecture=get_architecture(arch or "x86_64"),
    )
    saved = story.saved
    say(
        f"dead; {saved.path}: {format_size(saved.size)}, "
        f"{story.named:.2f} s after the death"
    )
    say(
        f"replaced {story.finished:.2f} s after the death, with what a second look "
        "added"
    )
    return _Told(saved.path, not saved.missing, story.named, story.finished)


def _tell_of_firmware(output: Path, series: str, arch: str | None, say: _Say) -> _Told:
    from kmemdump.lab import PackageCache, default_folder, get_architecture
    from kmemdump.lab.firmware_demo import tell_of_firmware

    story = tell_of_firmware(
        output,
        PackageCache(default_folder(os.environ)),
        say,
        series=series,
        architecture=get_architecture(arch or "aarch64"),
    )
    size = format_size(story.core.stat().st_size)
    say(f"collected in {story.seconds:.2f} s: {story.core}, {size}")
    complete = not story.missing
    return _Told(story.core, complete, story.seconds, dump=output / "dump")


def _program(name: str) -> str:
    """Return how this person calls a program that was installed with ours."""
    if shutil.which(name):
        return name
    return os.path.relpath(Path(sys.executable).with_name(name))
