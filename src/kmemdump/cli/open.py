# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump open``."""

from __future__ import annotations

import json
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kmemdump.bounds.steps import hand_over
from kmemdump.cli.shared.messages import print_message
from kmemdump.cli.shared.options import TargetOptions, opened_target, target_options
from kmemdump.errors import (
    FormatError,
    KmemdumpError,
    UnsupportedError,
    UsageError,
)
from kmemdump.files import OpenFile
from kmemdump.installing import describe_install
from kmemdump.sealing import NoKeyError, unseal
from kmemdump.text import shell_command

if TYPE_CHECKING:
    from kmemdump.debuggers.compatibility import DebuggedFile

__all__ = ["command"]


@click.command("open")
@click.argument("target", metavar="CORE")
@click.argument("arguments", nargs=-1, metavar="[-- ARGUMENT…]")
@click.option(
    "--with",
    "debugger",
    type=click.Choice(["drgn", "crash", "gdb"]),
    default="drgn",
    show_default=True,
    help="The debugger.",
)
@click.option(
    "--print", "only_print", is_flag=True, help="Only print the command line."
)
@target_options
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the command line as JSON, and start nothing.",
)
def command(
    target: str,
    arguments: tuple[str, ...],
    debugger: str,
    only_print: bool,
    vmlinux: Path | None,
    reading: TargetOptions,
    as_json: bool,
) -> int:
    """
    Start a debugger on CORE, with the right vmlinux, offsets and options.

    \b
    kmemdump open vm.core
    kmemdump open vm.core --with crash
    kmemdump open vm.core --with gdb --vmlinux vmlinux -- -batch -ex log

    The vmlinux is found by its build id in the usual places (/usr/lib/debug, …), and by
    debuginfod if DEBUGINFOD_URLS is set. drgn needs none for a core image. In gdb,
    "log" and "tasks" print the kernel's log and tasks. Arguments after "--" are passed
    on.

    The file may be a stranger's: gdb runs without auto-load and without .gdbinit (-nx),
    crash without .crashrc, and drgn imports from the current folder last. Settings of
    yours: -- -x ~/.gdbinit, or -- -i ~/.crashrc.

    A sealed CORE is opened in memory (--identity); no file of what is in it is made.
    """
    from kmemdump.debuggers.compatibility import find_debuggers
    from kmemdump.kernel.attach import debug_file_build_id
    from kmemdump.kernel.vmlinux_search import find_vmlinux

    if target == "live" or target.startswith("qmp:"):
        raise UsageError(f"{target}: debuggers open files\nfirst: {_capture(target)}")
    path = Path(target.removeprefix("file:"))
    unsealed: int | None = None
    try:
        file = _describe(target, path, reading._replace(identity=()))
    except NoKeyError as error:
        if only_print or as_json:
            raise UsageError(
                f"{target}: is sealed: a debugger opens it in memory only, while open "
                "runs it\nleave out --print and --json, or 'kmemdump unseal' it first"
            ) from error
        with closing(OpenFile(path)) as sealed:
            unsealed = unseal(sealed, error.sealed, reading.identity).detach()
        path = Path(f"/proc/self/fd/{unsealed}")
        file = _describe(f"file:{path}", path, reading)
    if file.release is not None and "/" in file.release:
        # drgn and debuginfod look for it, too.
        raise FormatError(
            f"{target}: OSRELEASE",
            f"{file.release!r}, expected a release without a slash: it leads to a file",
        )
    (choice,) = (item for item in find_debuggers(file) if item.name == debugger)
    if not choice.command:
        advice = "'kmemdump info' says what can"
        if not (file.is_elf or file.is_kdump):
            # As usual for a file of RAM: all of them open a core image of it.
            advice = f"first: {_capture(file.path)}"
        raise UnsupportedError(
            f"{target}: {debugger} cannot open it: {choice.note}\n" + advice
        )
    if vmlinux is not None:
        if file.build_id is not None:
            its = debug_file_build_id(vmlinux)
            if its != file.build_id:
                raise UsageError(
                    f"{vmlinux}: build id {its}, but the kernel is {file.release} "
                    f"with build id {file.build_id}"
                )
    elif choice.needs_vmlinux:
        if file.release is None:
            raise UsageError(
                f"{target}: the file names no kernel\n"
                "give its debug file with --vmlinux FILE"
            )
        vmlinux = find_vmlinux(file.release, file.build_id, os.environ)
    argv = file.argv(debugger, vmlinux, arguments)
    note = choice.note if debugger != "drgn" else ""
    if as_json:
        record = {
            "version": 1,
            "debugger": debugger,
            "argv": argv,
            "vmlinux": None if vmlinux is None else str(vmlinux),
            "notes": [note] if note else [],
        }
        click.echo(json.dumps(record, indent=2))
        return 0
    if note:
        print_message(f"{debugger}: {note}")
    click.echo(shell_command(*argv), err=not only_print)
    if only_print:
        return 0
    sys.stdout.flush()
    sys.stderr.flush()
    hand_over()
    if unsealed is not None:
        os.set_inheritable(unsealed, True)
    if debugger == "drgn":
        os.environ["PYTHONSAFEPATH"] = "1"
    try:
        os.execvp(argv[0], argv)
    except FileNotFoundError:
        own = debugger == "drgn"  # That of kmemdump's own environment.
        advice = "pip install drgn" if own else describe_install(debugger)
        raise UnsupportedError(
            f"{argv[0]} is not installed\ninstall it: {advice}"
        ) from None


def _describe(target: str, path: Path, reading: TargetOptions) -> DebuggedFile:
    from kmemdump.debuggers.compatibility import describe_file

    with opened_target(target, reading) as opened:
        try:
            info = opened.vmcoreinfo()
        except KmemdumpError:
            info = None
        return describe_file(opened, path, info)


def _capture(target: object) -> str:
    return shell_command("kmemdump", "capture", target, "-o", "CORE")
