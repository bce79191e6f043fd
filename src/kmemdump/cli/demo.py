# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump demo``."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

from kmemdump.cli.shared.options import path_option
from kmemdump.cli.shared.outputs import Output, check_output
from kmemdump.errors import ExitCode, UsageError
from kmemdump.files import PartialFile
from kmemdump.text import plain_console, shell_command

if TYPE_CHECKING:
    from kmemdump.lab import KernelPackage
    from kmemdump.lab.demo import DemoResult
    from kmemdump.report.report import Report

__all__ = ["command"]

_WRITTEN = {
    "core.elf": Output.CORE,
    "report.txt": Output.REPORT,
    "rawdump.img": Output.RAWDUMP,
}
_RECORDS = 15
"""Maximum of log records on the screen; report.txt has more."""


@click.command("demo")
@click.option(
    "-o",
    "--output",
    default="kmemdump-demo",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Folder for core.elf and report.txt.",
)
@click.option(
    "--kernel",
    "series",
    type=click.Choice(["6.1", "6.12"]),
    help="Debian's kernel to crash. Default: 6.12; elsewhere, this machine's own.",
)
@path_option("--vmlinuz", help="Crash this kernel: any file that boots.")
@path_option(
    "--modules",
    metavar="DIR",
    help="Its modules. Default: those in /lib/modules, if they are there.",
)
@click.option(
    "--arch",
    type=click.Choice(["x86_64", "aarch64"]),
    help="Architecture of the VM. Default: x86_64; aarch64 with --backend minidump.",
)
@click.option(
    "--backend",
    default="vm",
    show_default=True,
    type=click.Choice(["vm", "minidump", "kdump"]),
    help="What dumps the marked memory: the VM's host, simulated phone firmware, or a "
    "crash kernel in the VM.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print JSON; the steps go to standard error.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Replace files of these names in FOLDER that no demonstration wrote.",
)
def command(
    output: Path,
    series: str | None,
    vmlinuz: Path | None,
    modules: Path | None,
    arch: str | None,
    backend: str,
    as_json: bool,
    force: bool,
) -> int:
    """
    Mark a kernel in a VM, crash it, and report from its core image.

    \b
    kmemdump demo
    kmemdump demo --vmlinuz /boot/vmlinuz-$(uname -r)
    kmemdump demo --backend minidump
    kmemdump demo --backend kdump

    With --backend minidump, its regions are registered with simulated boot firmware,
    which leaves files like a phone's; the core image is made from them. With --backend
    kdump, the kernel is marked inside the VM, its crash kernel copies the regions, and
    the next boot collects them.

    On Debian, Debian's kernel is downloaded if needed, elsewhere this machine's own is
    taken. QEMU must be installed, and the VM needs no root. Nothing is done to this
    machine.
    """
    from kmemdump.core import open_core
    from kmemdump.lab import PackageCache, default_folder
    from kmemdump.lab.crash_kernel_demo import run_crash_kernel_demo
    from kmemdump.lab.demo import run_demo, run_firmware_demo
    from kmemdump.report.text import print_report

    kernel = _choose_kernel(series, vmlinuz, modules, arch, backend)
    output.mkdir(parents=True, exist_ok=True)
    path = output / "report.txt"
    for name, what in _WRITTEN.items():  # What is wrong there shows before the boot.
        if what is not Output.RAWDUMP or backend == "minidump":
            PartialFile(output / name).discard()
            check_output(output / name, force, None, what)
    screen = plain_console(stderr=as_json)

    def say(line: str) -> None:
        screen.print(Text.assemble(("==", "bold"), f" {line}"))

    run = {
        "vm": run_demo,
        "minidump": run_firmware_demo,
        "kdump": run_crash_kernel_demo,
    }[backend]
    cache = PackageCache(default_folder(os.environ))
    result = run(output, cache, say, kernel)
    with open_core(result.core) as core:
        report = core.report(all_stacks=False)
    with PartialFile(path) as file:
        file.write(report.to_text().encode("utf-8", "backslashreplace"))
    if as_json:
        click.echo(json.dumps(_record(result, path, report), indent=2))
    else:
        print_report(report, plain_console(), most=_RECORDS)
        say(f"the whole report is in {path}; now ask more:")
        for line in _more_questions(result.core):
            screen.print(f"     {line}", soft_wrap=True)  # It is pasted as one line.
    return ExitCode.DONE if result.complete else ExitCode.INCOMPLETE


def _choose_kernel(
    series: str | None,
    vmlinuz: Path | None,
    modules: Path | None,
    arch: str | None,
    backend: str,
) -> KernelPackage:
    from kmemdump.lab import PackageCache, default_folder, get_architecture
    from kmemdump.lab.apt import have_debian
    from kmemdump.lab.own_kernel import find_own_image, own_kernel

    if vmlinuz is not None and series is not None:
        raise UsageError("--vmlinuz and --kernel exclude each other")
    if modules is not None and vmlinuz is None:
        raise UsageError("--modules needs --vmlinuz")
    if vmlinuz is None and series is None and arch is None and not have_debian():
        vmlinuz = find_own_image(os.uname().release)
    if vmlinuz is None:
        name = arch or ("aarch64" if backend == "minidump" else "x86_64")
        cache = PackageCache(default_folder(os.environ))
        return cache.kernel(series or "6.12", get_architecture(name))
    kernel = own_kernel(vmlinuz, modules)
    if arch not in (None, kernel.architecture.name):
        raise UsageError(
            f"{vmlinuz}: is of {kernel.architecture.name}, but --arch is {arch}"
        )
    return kernel


def _record(result: DemoResult, path: Path, report: Report) -> dict[str, object]:
    cause = report.cause
    return {
        "version": 1,
        "kernel": report.kernel.release,
        "machine": report.kernel.machine,
        "core": str(result.core),
        "size": result.core.stat().st_size,
        "complete": result.complete,
        "seconds": round(result.seconds, 6),
        "finished": None if result.finished is None else round(result.finished, 6),
        "dump": None if result.dump is None else str(result.dump),
        "report": str(path),
        "cause": {"kind": cause.kind, "sentence": cause.sentence, "cpu": cause.cpu},
    }


def _more_questions(core: Path) -> tuple[str, ...]:
    return (
        shell_command(_program("kmemdump"), "ask", core, "ps", "bt 1", "mount"),
        shell_command(_program("drgn"), "-c", core),
    )


def _program(name: str) -> str:
    """Return how to call a program that was installed with ours."""
    if shutil.which(name):
        return name
    return os.path.relpath(Path(sys.executable).with_name(name))
