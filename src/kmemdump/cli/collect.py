# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump collect``."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from kmemdump.cli.shared.agent_output import run_folder
from kmemdump.cli.shared.messages import held_back_warnings, print_message
from kmemdump.cli.shared.options import (
    core_option,
    firmware_options,
    identity_option,
    path_option,
    vmcoreinfo_option,
)
from kmemdump.cli.shared.outputs import check_output, force_option
from kmemdump.cli.shared.sealing import seal_options
from kmemdump.collect.device import is_device, read_device
from kmemdump.collect.source import Options, open_source
from kmemdump.collect.write import write_collected
from kmemdump.errors import ExitCode, UnsupportedError, UsageError
from kmemdump.sealing import Seal
from kmemdump.sealing.memory import folder_in_memory
from kmemdump.text import format_size, plain_console

__all__ = ["command"]

_MOST = 20
"""Maximum of problems to print; the core image's manifest has all regions."""


@click.command("collect")
@click.argument("source")
@core_option
@force_option
@path_option(
    "--keep-files",
    "keep",
    metavar="FOLDER",
    help="Keep the files of a device in a new folder.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="PATTERN",
    help="Download only a device's files with matching names, such as 'md_*'.",
)
@seal_options
@vmcoreinfo_option
@identity_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@firmware_options
def command(
    source: str,
    output: Path,
    force: bool,
    keep: Path | None,
    only: tuple[str, ...],
    seal: Seal | None,
    as_json: bool,
    options: Options,
) -> int:
    """
    Make a core image of what firmware or a crash kernel left of a crashed machine.

    \b
    kmemdump collect dump/ -o phone.core
    kmemdump collect usb -o phone.core --keep-files files
    kmemdump collect kdump -o /srv/dead.core
    kmemdump collect ram.img -o phone.core --memory-map 0x80000000

    SOURCE is one of

    \b
      a folder of md_*.BIN files, as qdl, edl and others leave it
      an ELF core that such a tool made of them (qdl's minidump.elf)
      a rawdump image, or the partition where firmware wrote one
      kdump: what this machine's crash kernel left, found by its settings
      a file kmemdump-*.elf, which a crash kernel wrote
      usb, usb:SERIAL: a device in ramdump mode on USB
      sahara:SOCKET: such a device behind a Unix socket
      a RAM image, or another target, with the minidump table or a kinfo in it
    """
    check_output(output, force, source)
    if not is_device(source):
        if keep is not None or only:
            raise UsageError(
                "--keep-files and --only are for devices: nothing is downloaded here"
            )
        return _collect(source, output, seal, options, as_json)
    if keep is not None and seal is not None:
        raise UsageError(
            "--keep-files would keep what --seal seals: leave one of them out"
        )
    return _from_device(source, output, keep, only, seal, options, as_json)


def _from_device(
    source: str,
    output: Path,
    keep: Path | None,
    only: tuple[str, ...],
    seal: Seal | None,
    options: Options,
    as_json: bool,
) -> int:
    place = output.parent if seal is None else _place_in_memory()
    folder = keep or Path(tempfile.mkdtemp(dir=place, prefix="kmemdump-"))
    status = None
    try:
        with _progress() as step:
            problems = read_device(source, folder, only=only, progress=step)
        for line in problems:
            print_message(line)
        status = _collect(str(folder), output, seal, options, as_json)
    finally:
        if keep is None:
            _clean_up(folder, status == ExitCode.DONE, in_memory=seal is not None)
    return status


def _place_in_memory() -> Path:
    """Return where to put files of a device that must not reach a disk."""
    found = folder_in_memory((Path("/dev/shm"), run_folder(os.environ)))
    if found is None:
        raise UnsupportedError(
            "--seal: no folder in memory (tmpfs) for the device's files\n"
            "mount one on /dev/shm"
        )
    return found


def _clean_up(folder: Path, complete: bool, *, in_memory: bool) -> None:
    """Remove a device's files if all of them are in the core image."""
    # A device gives its memory only once.
    if complete or not any(folder.iterdir()):
        shutil.rmtree(folder)
    else:
        until = ", in memory, until the next boot" if in_memory else ""
        print_message(f"what the device gave is kept in {folder}{until}")


def _collect(
    source: str, output: Path, seal: Seal | None, options: Options, as_json: bool
) -> int:
    with held_back_warnings(progress=True), open_source(source, options) as target:
        missing = write_collected(output, target, seal)
        dump = target.dump
    size = sum(item.size for item in dump.memory.ranges)
    lines = dump.warnings
    if as_json:
        facts = {"core": str(output), "regions": len(dump.regions), "bytes": size}
        click.echo(json.dumps({"version": 1, **facts, "problems": lines}, indent=2))
    else:
        for line in lines[:_MOST]:
            print_message(line)
        if len(lines) > _MOST:
            print_message(f"{len(lines) - _MOST} more problems")
        click.echo(f"{output}: {len(dump.regions)} regions, {format_size(size)}")
    return ExitCode.INCOMPLETE if missing or lines else ExitCode.DONE


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    from rich.progress import Progress

    console = plain_console(stderr=True)
    with Progress(
        console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("downloading", total=None)
        yield lambda name, done, size: progress.update(
            task, description=name, completed=done, total=size
        )
