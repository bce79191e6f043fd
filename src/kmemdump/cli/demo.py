# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump demo``."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from kmemdump.errors import ExitCode
from kmemdump.files import format_size

if TYPE_CHECKING:
    from kmemdump.report import Report

__all__ = ["command"]

_LINES = 15


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
def command(output: Path, series: str, arch: str | None, backend: str) -> int:
    """
    Show the whole story in a VM: a kernel is marked, dies, and is asked.

    With --backend minidump, its regions are registered with firmware, which is played:
    it leaves files like a phone's, and a core image is made of those.

    Debian's kernel is downloaded if it is not there yet; QEMU must be installed.
    """
    from kmemdump.report import print_report

    output.mkdir(parents=True, exist_ok=True)
    screen = Console(highlight=False)

    def say(line: str) -> None:
        screen.print(f"[bold]==[/] {line}")

    tell = _tell if backend == "vm" else _tell_of_firmware
    core, whole = tell(output, series, arch, say)
    report = _report(core)
    path = output / "report.txt"
    with path.open("w", encoding="utf-8") as file:
        print_report(report, Console(file=file, width=100))
    print_report(report, Console(), lines=_LINES)
    say(
        f"the whole report is in {path}; now ask more:\n"
        f"     {_program('kmemdump')} ask {core} ps 'bt 1' mount\n"
        f"     {_program('drgn')} -c {core}"
    )
    return ExitCode.DONE if whole else ExitCode.INCOMPLETE


_Say = Callable[[str], None]


def _tell(output: Path, series: str, arch: str | None, say: _Say) -> tuple[Path, bool]:
    """Return the core image, and whether it is whole."""
    from kmemdump.lab import PackageCache, default_folder, get_architecture
    from kmemdump.lab.story import tell

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
    return saved.path, not saved.missing


def _tell_of_firmware(
    output: Path, series: str, arch: str | None, say: _Say
) -> tuple[Path, bool]:
    from kmemdump.lab import PackageCache, default_folder, get_architecture
    from kmemdump.lab.firmware_story import tell_of_firmware

    story = tell_of_firmware(
        output,
        PackageCache(default_folder(os.environ)),
        say,
        series=series,
        architecture=get_architecture(arch or "aarch64"),
    )
    size = format_size(story.core.stat().st_size)
    say(f"collected in {story.seconds:.2f} s: {story.core}, {size}")
    return story.core, not story.missing


def _program(name: str) -> str:
    """Return how this person calls a program that was installed with ours."""
    if shutil.which(name):
        return name
    return os.path.relpath(Path(sys.executable).with_name(name))


def _report(core: Path) -> Report:
    from kmemdump.coreimage import read_core
    from kmemdump.kernel.attach import attach
    from kmemdump.report import gather
    from kmemdump.targets import open_target

    with read_core(core) as image:
        manifest = image.manifest
    target = open_target(str(core))
    try:
        return gather(attach(target), str(core), manifest)
    finally:
        target.close()
