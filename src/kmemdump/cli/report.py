# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump report``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from kmemdump.cli.shared.messages import print_message
from kmemdump.cli.shared.options import (
    TargetOptions,
    opened_target,
    path_option,
    target_options,
)
from kmemdump.cli.shared.outputs import check_output, force_option
from kmemdump.errors import ExitCode, TargetError, UsageError
from kmemdump.files import PartialFile
from kmemdump.text import format_memory, printable

if TYPE_CHECKING:
    from kmemdump.report.report import Report

__all__ = ["command"]


@click.command("report")
@click.argument("target", metavar="CORE|LOG")
@target_options
@path_option("-o", "--output", help="Write the report to a file.")
@path_option("--html", "page", help="Write one self-contained page for a browser.")
@force_option
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
    help="Find the kernel's debug file, for file and line of functions: in the usual "
    "places, then by debuginfod if DEBUGINFOD_URLS is set.",
)
@click.option(
    "--redact",
    is_flag=True,
    help="Remove data first, as 'kmemdump redact' does, by policy share.",
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
    kmemdump report /var/lib/systemd/pstore
    journalctl -k -b -1 -o export | kmemdump report -

    A log may be that of a serial console, of dmesg, journalctl, syslog or netconsole
    (plain or extended), in a file, also compressed, in a folder of pstore, or "-" for
    standard input.

    The cause of death comes first, with the stack of the CPU where it happened; then
    the machine, its other CPUs, and the log records that led to the death.
    """
    from kmemdump.report.records import UNDAMAGED

    check_output(page, force)
    check_output(output, force)
    source_lines = source_lines and vmlinux is None
    if redact or policy is not None:
        if source_lines:
            raise UsageError("--source-lines is not allowed with --redact")
        report = _redacted_report(target, vmlinux, reading, policy or "share")
    elif source_lines:
        report = _report_with_lines(target, reading)
    else:
        report = _report(target, vmlinux, reading)
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

    console = Console(highlight=False)
    with console.capture() as shown:
        print_report(report, console, lines=lines)
    text = shown.get()
    click.echo(text, nl=False)
    # On a terminal, the first lines of a long report have scrolled away.
    if console.is_terminal and text.count("\n") >= console.height:
        print_cause(report, console)


def _report(target: str, vmlinux: Path | None, reading: TargetOptions) -> Report:
    from kmemdump.core import Core
    from kmemdump.kernel.user_builds import user_builds
    from kmemdump.logs.read import open_log
    from kmemdump.report.from_log import gather_from_log

    # With a memory map, the user says that it is a raw RAM image.
    log = None if reading.memory_map else open_log(target)
    if log is not None:
        if reading.vmcoreinfo is not None:
            raise UsageError(f"{target}: --vmcoreinfo is not allowed (a kernel log)")
        return gather_from_log(log, vmlinux=vmlinux)
    with opened_target(target, reading) as opened:
        builds = user_builds(os.environ, opened)
        return Core(opened, vmlinux=vmlinux, builds=builds).report()


def _report_with_lines(target: str, reading: TargetOptions) -> Report:
    """Make a report; find the kernel's debug file; add what that has."""
    from kmemdump.bounds.steps import raise_memory
    from kmemdump.kernel.vmlinux_search import find_vmlinux
    from kmemdump.report.records import Loss
    from kmemdump.report.source_lines import add_source_lines

    report = _report(target, None, reading)
    kernel = report.kernel
    try:
        if kernel.release is None:
            raise TargetError("it names no kernel")
        vmlinux = find_vmlinux(kernel.release, kernel.build_id, os.environ)
    except TargetError as error:
        loss = Loss("the source lines", "; ".join(str(error).splitlines()))
        return replace(report, missing=(*report.missing, loss))
    size = format_memory(vmlinux.stat().st_size)
    print_message(f"{target}: source lines by {vmlinux} ({size})")
    raise_memory()
    if report.cpus:  # In memory, and not in a log.
        return _report(target, vmlinux, reading)
    trace, losses = add_source_lines(report.trace, vmlinux)
    return replace(report, trace=trace, missing=(*report.missing, *losses))


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
        report = gather_from_log(redacted_log(log, policy), vmlinux=vmlinux)
        return replace(report, redacted=policy.name)
    if vmlinux is not None:
        raise UsageError("--vmlinux is not allowed with --redact")
    with opened_target(target, reading) as opened:
        return redact(opened, policy, builds=user_builds(os.environ, opened)).report()
