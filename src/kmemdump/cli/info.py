# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump info``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

from kmemdump.arch.architecture import arch_from_elf
from kmemdump.cli.shared.messages import print_message
from kmemdump.cli.shared.options import TargetOptions, opened_target, target_options
from kmemdump.errors import ExitCode, UnsupportedError
from kmemdump.formats.sealed import Sealed
from kmemdump.sealing import NoKeyError
from kmemdump.targets import Target
from kmemdump.text import format_duration, plain_console, printable

if TYPE_CHECKING:
    from kmemdump.coreimage import AreaRecord
    from kmemdump.report.inspect import Inspection, QuestionCheck

__all__ = ["command"]

_MOST_QUESTIONS = 5
_MOST_AREAS = 256
"""A stranger's manifest may have a hundred thousand."""


@click.command("info")
@click.argument("target", metavar="CORE")
@target_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with all regions.")
@click.option(
    "-v", "--verbose", is_flag=True, help="List questions and regions as well."
)
@click.option(
    "--contents",
    is_flag=True,
    help="List which kinds of data are in CORE, in words for data protection.",
)
def command(
    target: str,
    vmlinux: Path | None,
    reading: TargetOptions,
    as_json: bool,
    verbose: bool,
    contents: bool,
) -> int:
    """
    Show the contents of CORE, whether it is intact, and what opens it.

    \b
    kmemdump info vm.core
    kmemdump info vm.core --contents

    All of CORE is read and compared with its checksums, and kmemdump's own questions
    are tried on it.
    """
    from kmemdump.kernel.user_builds import user_builds
    from kmemdump.report.inspect import inspect, shorten
    from kmemdump.report.schema import VERSION, to_plain

    if contents:
        with opened_target(target, reading) as opened:
            return _show_contents(opened, as_json)
    path = Path(target.removeprefix("file:"))
    try:
        with opened_target(target, reading) as opened:
            found = inspect(
                opened,
                path if path.is_file() else None,
                vmlinux=vmlinux,
                builds=user_builds(os.environ, opened),
            )
    except NoKeyError as error:
        return _print_sealed(path, error.sealed, as_json)
    if as_json:
        click.echo(json.dumps({"version": VERSION, **to_plain(found)}, indent=2))
    else:
        _print(found, verbose)
    for problem in shorten(found.problems):
        print_message(f"{target}: {problem}")
    for item in found.broken[:_MOST_QUESTIONS]:
        print_message(
            f"{target}: area {item.area} does not answer {item.question}: {item.reason}"
        )
    incomplete = [area.name for area in found.areas if not area.complete]
    complete = not (found.problems or found.broken or incomplete)
    return ExitCode.DONE if complete else ExitCode.INCOMPLETE


def _print_sealed(path: Path, sealed: Sealed, as_json: bool) -> int:
    """Print what a sealed file says without a key."""
    from kmemdump.report.schema import VERSION
    from kmemdump.report.text import print_lines

    clear, size = sealed.clear, path.stat().st_size
    if as_json:
        record: dict[str, object] = {"source": str(path), "size": size, "sealed": True}
        if clear is not None:
            record |= {
                "release": clear.release or None,
                "captured": clear.time.isoformat(),
                "unsealed_size": clear.size,
                "signature": clear.signature or None,
            }
        click.echo(json.dumps({"version": VERSION, **record}, indent=2))
    else:
        facts = [("File", str(path)), ("Size", f"{size:,} bytes, sealed")]
        if clear is not None:
            facts += [
                ("Kernel", clear.release or "unknown"),
                ("Captured", f"{clear.time:%Y-%m-%d %H:%M:%S} UTC"),
                ("Unsealed", f"{clear.size:,} bytes"),
            ]
            if clear.signature:
                facts.append(("Signature", clear.signature))
        console = plain_console()
        for name, value in facts:
            print_lines(console, value, head=f"{name + ':':<12}")
    print_message(f"{path}: is sealed; --identity FILE shows the rest")
    return ExitCode.INCOMPLETE


def _show_contents(target: Target, as_json: bool) -> int:
    """Print which kinds of data a core image has, by what its areas read."""
    from kmemdump.redaction.contents import contents_of
    from kmemdump.report.text import print_lines

    found = contents_of(target)
    if as_json:
        click.echo(json.dumps({"version": 1, **found.to_json()}, indent=2))
        return ExitCode.DONE
    console = plain_console()
    state = f"redacted by policy {found.redacted}" if found.redacted else "not redacted"
    # A path is not wrapped.
    console.print(Text(printable(f"{target.name}: {state}")), soft_wrap=True)
    for kind in found.kinds:
        console.print()
        console.print(kind.kind, style="bold")
        print_lines(console, kind.meaning, indent=2)
        where = f"areas: {', '.join(kind.areas)}" if kind.areas else "notes of the file"
        print_lines(console, where, indent=2)
        if kind.policy:
            print_lines(console, f"policy {found.redacted}: {kind.policy}", indent=2)
    return ExitCode.DONE


def _print(found: Inspection, verbose: bool) -> None:
    from kmemdump.report.text import print_lines

    console = plain_console()
    for name, value in _facts(found):
        print_lines(console, value, head=f"{name + ':':<12}")
    if found.areas:
        console.print()
        console.print(f"{'Area':<12} {'bytes':>10}  complete", style="bold")
    tried = {(item.area, item.question): item for item in found.tried}
    more = max(len(found.areas) - _MOST_AREAS, 0)
    for area in found.areas if verbose else found.areas[:_MOST_AREAS]:
        how = "yes" if area.complete else f"no: {area.reason}"
        head = f"{area.name:<12} {area.bytes:>10,}  "
        print_lines(console, how, head=head)
        if verbose:
            _print_questions(area, tried)
    if more and not verbose:
        print_lines(console, f"and {more} more areas, which --verbose lists")
    if verbose and found.regions:
        console.print()
        console.print(f"{'Region':<32} {'address':>14} {'bytes':>10}", style="bold")
        for region in found.regions:
            numbers = f"{region.address:#14x} {region.size:>10,}"
            print_lines(console, f"{region.name:<32} {numbers}")
    if found.debuggers:
        console.print()
        console.print("Open it with", style="bold")
    for debugger in found.debuggers:
        if not debugger.command:
            print_lines(console, f"not {debugger.name}: {debugger.note}", indent=2)
            continue
        console.print(f"  {debugger.command}", soft_wrap=True)
        if debugger.note:
            print_lines(console, debugger.note, indent=6)
    if any(debugger.needs_vmlinux and debugger.command for debugger in found.debuggers):
        build = f", build id {found.build_id}" if found.build_id else ""
        text = f"VMLINUX is the debug file of kernel {found.release}{build}."
        print_lines(console, text, indent=2)


def _print_questions(
    area: AreaRecord, tried: Mapping[tuple[str, str], QuestionCheck]
) -> None:
    """Print which of an area's questions the file answers; ours were just tried."""
    from kmemdump.report.text import print_lines

    console = plain_console()
    for question in area.questions:
        ours = tried.get((area.name, question.text))
        # Users' own questions are not run; the file has their results.
        good = ours.answered if ours else question.complete
        why = ours.reason if ours else question.reason
        mark = "answers" if good else "lacks"
        claim = "" if ours else " (not tried)"
        text = f"{question.text}{claim}" if good else f"{question.text}{claim}: {why}"
        print_lines(console, text, head=f"  {mark:<8}", indent=2)


def _answers(found: Inspection) -> str:
    good = [item.question for item in found.tried if item.answered]
    if found.unanswerable is not None:
        only = f"only {', '.join(good)}" if good else "none"
        return f"{only}: {' '.join(found.unanswerable.split())}"
    commands = [text for text in good if "_" not in text]
    return (
        f"{len(good)} of {len(found.tried)} of kmemdump's own questions, tried just "
        f"now: {', '.join(commands)}, …"
    )


def _facts(found: Inspection) -> Iterator[tuple[str, str]]:
    from kmemdump.report.inspect import shorten

    try:
        machine = arch_from_elf(found.machine).name
    except UnsupportedError:  # A firmware dump may be of any machine.
        machine = f"ELF machine {found.machine}"
    release = found.release or "unknown: there is no VMCOREINFO"
    yield "File", found.source
    yield "Kernel", f"{release}, {machine}"
    if found.build_id:
        yield "Build id", found.build_id
    if found.tool is None:
        yield "Written by", "another program: there is no list of areas and checksums"
    else:
        held = f", regions held by {found.backend}" if found.backend else ""
        yield "Written by", f"{found.tool}{held}"
    if found.cause is not None:
        yield "Because", found.cause
    if found.redacted is not None:
        yield "Redacted", f"by policy {found.redacted}"
    if found.captured is not None:
        age = (datetime.now(UTC) - found.captured).total_seconds()
        ago = f", {format_duration(age)} ago" if age >= 0 else ""
        yield "Captured", f"{found.captured:%Y-%m-%d %H:%M:%S} UTC{ago}"
        if found.marked is not None:
            before = (found.captured - found.marked).total_seconds()
            yield "Marked", f"{format_duration(max(before, 0))} before it was captured"
        else:
            yield "Marked", "when it was captured, not before"
    if found.size is not None:
        yield "Size", f"{found.size:,} bytes"
    where = f"{found.ranges} ranges"
    yield "Memory", f"{found.bytes:,} bytes in {where}"
    if found.tool is not None:
        captured = sum(region.captured for region in found.regions)
        yield "Regions", f"{len(found.regions)}, {captured:,} bytes"
    yield "Registers", f"of {found.cpus} CPUs" if found.cpus else "none"
    yield "Answers", _answers(found)
    if found.problems:
        yield "Damaged", "; ".join(shorten(found.problems))
    elif found.regions:
        yield "Checksums", "all regions are as they were written"
