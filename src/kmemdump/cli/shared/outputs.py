# SPDX-License-Identifier: GPL-2.0-or-later
"""Outputs that exist: a verb replaces what it wrote, and no other files."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import click

from kmemdump.errors import FormatError, TargetError, UsageError
from kmemdump.files import OpenFile
from kmemdump.formats.notes import NoteType, read_own
from kmemdump.formats.rawdump import RAWDUMP_MAGIC
from kmemdump.formats.sealed import CLEAR_LIMIT, find_sealed

__all__ = ["Output", "check_output", "force_option"]

_MAX_MANIFEST = 1 << 30
_HEAD = CLEAR_LIMIT
_REPORT = re.compile(
    rb"(Cause of death|State)\n"
    rb"|\{\s*\"version\": \d+,\s*\"source\":"
    rb"|<!DOCTYPE html>[\0-\xff]*?kmemdump"
)
"""How a report begins: as text, as JSON, as a page."""


class Output(Enum):
    """What a verb writes."""

    CORE = "core image"
    REPORT = "report"
    RAWDUMP = "raw dump"


def force_option(
    function: Callable[..., Any], what: Output = Output.CORE
) -> Callable[..., Any]:
    """Add ``--force``."""
    text = f"Replace a file that is no {what.value} of kmemdump."
    if what is Output.REPORT:
        text = (
            "Replace a file that is not known as a report of kmemdump: text, JSON and "
            "pages are, other forms are not."
        )
    return click.option("--force", is_flag=True, help=text)(function)


def check_output(
    path: Path | None,
    force: bool,
    source: str | Path | None,
    what: Output = Output.CORE,
) -> None:
    """
    Refuse to replace a file that we did not write, or that is read for the output.

    :param path: The file to be written, if any.
    :param source: What is read, if anything: a target. It is never replaced.
    :raises UsageError: If it is such a file.
    """
    if path is None:
        return
    if source is not None:
        _refuse_source(path, source)
    if force or not path.is_file() or not path.stat().st_size:
        return
    try:
        ours = _is_ours(path, what)
    except TargetError:  # It cannot even be read.
        ours = False
    if not ours:
        raise UsageError(
            f"{path}: exists, and is not known as a {what.value} of kmemdump\n"
            "--force replaces it"
        )


def _refuse_source(path: Path, source: str | Path) -> None:
    with contextlib.suppress(OSError, ValueError):
        # What a verb makes of a core image holds less: the rest would be lost.
        read = Path(str(source).removeprefix("file:"))
        if path.samefile(read) or (read.is_dir() and path.parent.samefile(read)):
            raise UsageError(f"{path}: is what is read, expected another file")


def _is_ours(path: Path, what: Output) -> bool:
    file = OpenFile(path)
    try:
        head = file.read(0, _HEAD)
        if what is Output.REPORT:
            return _REPORT.match(head) is not None
        if what is Output.RAWDUMP:
            return head.startswith(RAWDUMP_MAGIC)
        sealed = find_sealed(head, file.name)
        if sealed is not None and sealed.clear is not None:
            return True
        manifest = read_own(
            file.read, file.size, file.name, NoteType.MANIFEST, _MAX_MANIFEST
        )
        return manifest is not None
    except FormatError:
        return False
    finally:
        file.close()
