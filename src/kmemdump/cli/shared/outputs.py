# SPDX-License-Identifier: GPL-2.0-or-later
"""Outputs that exist: core images and reports of ours are replaced, no other files."""

from __future__ import annotations

import re
from pathlib import Path

import click

from kmemdump.errors import FormatError, TargetError, UsageError
from kmemdump.files import OpenFile
from kmemdump.formats.notes import NoteType, read_own
from kmemdump.formats.sealed import CLEAR_LIMIT, find_sealed

__all__ = ["check_output", "force_option"]

_MAX_MANIFEST = 1 << 30
_HEAD = CLEAR_LIMIT
_REPORT = re.compile(
    rb"(Cause of death|State)\n"
    rb"|\{\s*\"version\": \d+,\s*\"source\":"
    rb"|<!DOCTYPE html>[\0-\xff]*?kmemdump"
)
"""How a report begins: as text, as JSON, as a page."""

force_option = click.option(
    "--force",
    is_flag=True,
    help="Replace a file that is no core image or report of kmemdump.",
)


def check_output(path: Path | None, force: bool) -> None:
    """
    Refuse to replace a file that we did not write.

    :param path: The file to be written, if any.
    :raises UsageError: If it is such a file.
    """
    if path is None or force or not path.is_file() or not path.stat().st_size:
        return
    try:
        ours = _is_ours(path)
    except TargetError:  # It cannot even be read.
        ours = False
    if not ours:
        raise UsageError(
            f"{path}: exists, and is no core image or report of kmemdump\n"
            "--force replaces it"
        )


def _is_ours(path: Path) -> bool:
    file = OpenFile(path)
    try:
        head = file.read(0, _HEAD)
        sealed = find_sealed(head, file.name)
        if _REPORT.match(head) or (sealed is not None and sealed.clear is not None):
            return True
        manifest = read_own(
            file.read, file.size, file.name, NoteType.MANIFEST, _MAX_MANIFEST
        )
        return manifest is not None
    except FormatError:
        return False
    finally:
        file.close()
