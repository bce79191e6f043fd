# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump report``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kmemdump.cli.shared.messages import print_message
from kmemdump.cli.shared.options import (
    TargetOptions,
    opened_target,
    path_option,
    target_options,
)
from kmemdump.cli.shared.outputs import Output, check_output, force_option
from kmemdump.errors import ExitCode, UsageError
from kmemdump.files import PartialFile
from kmemdump.text import format_memory, plain_console, printable

if TYPE_CHECKING:
    from kmemdump.report.debug_files import DebugFiles
    from kmemdump.report.module_lines import ModulePlace
    from kmemdump.report.report import Report

__all__ = ["command"]


@click.command("report")
@click.argument("target", metavar="CORE|LOG")
@target_options
@path_option("-o", "--output", help="Write the report to a file.")
@path_option("--html", "page", help="Write one self-contained page for a browser.")
@partial(force_option, what=Output.REPORT)
@click.option(
    "--json",
    "form",
    flag_value="json",
    help="Write JSON, with the whole log.",
)
@click.option(
    "--mail", "form", flag_value="mail", help="Write text for a mail to a kernel list."
)
@click.option(
    "--title", "form", flag_value="title", help="Write a title as syzkaller gives it."
)
@click.option(
    "--ureport", "form", flag_value="ureport", help="Write a uReport of ABRT, as JSON."
)
@click.option(
    "--sentry", "form", flag_value="sentry", help="Write an event of Sentry, as JSON."
)
@click.option(
    "--lines",
    type=click.IntRange(min=0),
    metavar="N",
    help="Number of last log records to show; by default, those before the death.",
)
@click.option(
    "--source-lines",
    is_flag=True,
    help="Find debug files, of modules, too, for file and line of functions: in the "
    "usual places, then by debuginfod if DEBUGINFOD_URLS is set.",
)
@path_option(
    "--modules",
    multiple=True,
    metavar="PATH",
    help="A folder or file with modules' debug files, for their functions' lines.",
)
@click.option(
    "--redact",
    is_flag=True,
    help="Remove data first, as 'kmemdump redact' does, by policy share, which keeps "
    "most of the log.",
)
@click.option(
    "--policy",
    metavar="share|strict|FILE.toml",
    help="Remove data first, by this policy.",
)
def command(
    target: str,
    vmlinux: Path | None,
    reading: TargetOptions,
    output: Path | None,
    page: Path | None,
    force: bool,
    form: str | None,
    lines: int | None,
    source_lines: bool,
    modules: tuple[Path, ...],
    redact: bool,
    policy: str | None,
) -> int:
    """
    Show what happened to the kernel in CORE, in any other target, or in a mere LOG.

    \b
    kmemdump report vm.core
    kmemdump report /var/log/serial.log
    kmemdump report vm.core --redact --html share.html
    kmemdump report vm.core --source-lines
    kmemdump report vm.core --source-lines --modules build/
    kmemdump report /var/lib/systemd/pstore
    journalctl -k -b -1 -o export | kmemdump report -

    A log may be that of a serial console, of dmesg, journalctl, syslog or netconsole
    (plain or extended), in a file, also compressed, in a folder of pstore, or "-" for
    standard input.

    The cause of death comes first, with the stack of the CPU where it happened; then
    the machine, its other CPUs, and the log records that led to the death.
    """
    from kmemdump.report.records import UNDAMAGED

    for path in (page, output):
        check_output(path, force, target, Output.REPORT)
    if redact or policy is not None:
        if source_lines or modules:
            option = "--source-lines" if source_lines else "--modules"
            raise UsageError(f"{option} is not allowed with --redact")
        report = _redacted_report(target, vmlinux, reading, policy or "share")
    else:
        # Nothing else shows the stacks of all tasks.
        all_stacks = page is not None or form == "json"
        files = None
        if source_lines or modules or vmlinux is not None:
            from kmemdump.report.debug_files import DebugFiles

            environ = os.environ if source_lines or modules else None
            files = DebugFiles(vmlinux, modules, environ, kernel=source_lines)
        report = _report(target, reading, files, all_stacks=all_stacks)
    if page is not None:
        with PartialFile(page) as file:
            file.write(report.to_html().encode())
    if form is not None:
        text = _FORMS[form](report)
    elif page is not None and output is None:
        text = f"{page}: {printable(report.cause.sentence)}\n"
    elif output is None:
        _show(report, lines)
        text = ""
    else:
        text = report.to_text(lines=lines)
    if output is not None:
        with PartialFile(output) as file:
            file.write(text.encode("utf-8", "backslashreplace"))
    else:
        click.echo(text, nl=False)
    if report.missing:
        for loss in report.missing:
            if loss.what == UNDAMAGED:
                print_message(f"{target}: is damaged: {loss.why}")
        names = ", ".join(dict.fromkeys(loss.what for loss in report.missing))
        print_message(f"{target}: the report lacks {names}")
        return ExitCode.INCOMPLETE
    return ExitCode.DONE


def _dumps(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"


_FORMS: dict[str, Callable[[Report], str]] = {
    "json": lambda report: _dumps(report.to_json()),
    "mail": lambda report: report.to_mail(),
    "title": lambda report: printable(report.cause.title or "") + "\n",
    "ureport": lambda report: _dumps(report.to_ureport()),
    "sentry": lambda report: _dumps(report.to_sentry()),
}


def _show(report: Report, lines: int | None) -> None:
    from kmemdump.report.text import print_cause, print_report

    console = plain_console()
    with console.capture() as shown:
        print_report(report, console, lines=lines)
    text = shown.get()
    click.echo(text, nl=False)
    # On a terminal, the first lines of a long report have scrolled away.
    if console.is_terminal and text.count("\n") >= console.height:
        print_cause(report, console)


def _report(
    target: str, reading: TargetOptions, files: DebugFiles | None, *, all_stacks: bool
) -> Report:
    """
    Make a report.

    :param files: Has the debug files that the user named, and finds others; ``None`` if
        there are to be none.
    """
    from kmemdump.logs.read import open_log
    from kmemdump.report.from_log import gather_from_log

    # With a memory map, the user says that it is a raw RAM image.
    log = None if reading.memory_map else open_log(target)
    if log is not None:
        if reading.vmcoreinfo is not None:
            raise UsageError(f"{target}: --vmcoreinfo is not allowed (a kernel log)")
        report = gather_from_log(log)
        if files is None:
            return report
        from kmemdump.report.source_lines import with_source_lines

        _find_kernel(target, report, files)
        _find_modules(target, report, files)
        report = with_source_lines(report, files.vmlinux, files.modules)
    else:
        report, places = _gather(target, reading, files, all_stacks)
        if files is None:
            return report
        from kmemdump.report.module_lines import with_module_lines

        if _find_kernel(target, report, files):
            report, places = _gather(target, reading, files, all_stacks)
        _find_modules(target, report, files)
        report = with_module_lines(report, places, files.modules)
    return replace(report, missing=(*report.missing, *files.losses(report)))


def _gather(
    target: str, reading: TargetOptions, files: DebugFiles | None, all_stacks: bool
) -> tuple[Report, Mapping[str, ModulePlace]]:
    """Return the report of a kernel, and where its modules are if there are files."""
    from kmemdump.core import Core
    from kmemdump.kernel.user_builds import user_builds

    with opened_target(target, reading) as opened:
        builds = user_builds(os.environ, opened)
        vmlinux = None if files is None else files.vmlinux
        core = Core(opened, vmlinux=vmlinux, builds=builds)
        report = core.report(all_stacks=all_stacks)
        if files is None:
            return report, {}
        from kmemdump.report.module_lines import find_module_places

        return report, find_module_places(core.prog)


def _find_kernel(target: str, report: Report, files: DebugFiles) -> bool:
    from kmemdump.bounds.steps import raise_memory

    if not files.find_kernel(report) or files.vmlinux is None:
        return False
    size = format_memory(files.vmlinux.stat().st_size)
    print_message(f"{target}: source lines by {files.vmlinux} ({size})")
    raise_memory()
    return True


def _find_modules(target: str, report: Report, files: DebugFiles) -> None:
    from kmemdump.bounds.steps import raise_memory

    files.find_modules(report)
    if files.modules:
        names = ", ".join(str(paths[0]) for paths in files.modules.values())
        print_message(f"{target}: source lines of modules by {names}")
        raise_memory()


def _redacted_report(
    target: str, vmlinux: Path | None, reading: TargetOptions, name: str
) -> Report:
    from kmemdump.kernel.user_builds import user_builds
    from kmemdump.logs.read import open_log
    from kmemdump.redaction.log import redacted_log
    from kmemdump.redaction.policy import load_policy
    from kmemdump.redaction.redact import redact
    from kmemdump.report.from_log import gather_from_log

    policy = load_policy(name)
    log = None if reading.memory_map else open_log(target)
    if log is not None:
        from kmemdump.report.source_lines import with_source_lines

        report = gather_from_log(redacted_log(log, policy))
        report = with_source_lines(report, vmlinux, {})
        return replace(report, redacted=policy.name)
    if vmlinux is not None:
        raise UsageError("--vmlinux is not allowed with --redact")
    with opened_target(target, reading) as opened:
        return redact(opened, policy, builds=user_builds(os.environ, opened)).report()
