# SPDX-License-Identifier: GPL-2.0-or-later
"""
Rehearse a death: write the core image of a kernel that lives, and inspect it.

It is sealed if those of deaths are; then for a key of this process, too, by which it is
inspected in memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kmemdump.checks.point import Point, Rehearsal, missing, ok, warning
from kmemdump.errors import KmemdumpError
from kmemdump.locked_folder import LockedFolder
from kmemdump.opening import open_target, was_sealed
from kmemdump.report.inspect import Inspection, inspect, shorten
from kmemdump.sealing.process_key import process_key
from kmemdump.text import format_size, printable

__all__ = ["Rehearsed", "Write", "Written", "rehearse"]

_NAME = "rehearsal.core"
_POINT = "core image"


@dataclass(frozen=True, slots=True)
class Written:
    """A core image that was written for a rehearsal."""

    core: Rehearsal
    missing: int
    """Number of ranges of memory that it lacks."""
    problem: str | None
    """Why it holds only what was marked before."""


Write = Callable[[Path, str | None], Written]
"""Writes a core image to a path; if it is sealed, for this public key, too."""


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """The result of a rehearsal."""

    points: tuple[Point, ...]
    core: Rehearsal | None = None
    inspection: Inspection | None = None


def rehearse(write: Write, folder: Path | None) -> Rehearsed:
    """
    Write a core image as after a death, inspect it, and remove it.

    :param write: Writes it.
    :param folder: Where core images are to be written. If it does not exist yet, or
        cannot be written to, temporary files take its place.
    """
    places = [folder] if folder is not None and folder.is_dir() else []
    problems: list[str] = []
    for place in (*places, None):
        try:
            written, inspection, how = _write_and_inspect(write, place)
        except (KmemdumpError, OSError) as error:
            problems.append(printable(str(error).splitlines()[0]))
            continue
        if place is None:
            how = (*how, "a temporary file")
        damage = shorten(inspection.problems)
        points = [_describe(written, damage, how)]
        if problems:
            points.insert(0, missing("writing", problems[0], "make room, or see why"))
        return Rehearsed(tuple(points), written.core, inspection)
    return Rehearsed(tuple(missing(_POINT, text) for text in problems))


def _write_and_inspect(
    write: Write, place: Path | None
) -> tuple[Written, Inspection, tuple[str, ...]]:
    """Return what was written, what is in it, and how it is written."""
    # A check that takes too long is killed.
    with LockedFolder(place or Path(tempfile.gettempdir())) as scratch:
        path = scratch / _NAME
        with process_key() as key:
            written = write(path, key and key.public)
            identity = [] if key is None else [key.identity]
            with open_target(str(path), identity=identity) as target:
                how = ("sealed",) if was_sealed(target) else ()
                return written, inspect(target, path), how


def _describe(written: Written, damage: list[str], how: tuple[str, ...]) -> Point:
    core = written.core
    text = f"{format_size(core.size)} in {core.finished:.2f} s"
    if how:
        text += f" ({', '.join(how)})"
    if core.named < core.finished:
        text += f", what was marked before after {core.named:.2f} s"
    if damage:
        return missing(_POINT, f"{text}; damaged: {printable('; '.join(damage))}")
    if written.missing:
        return missing(_POINT, f"{text}; it lacks {written.missing} ranges of memory")
    if written.problem is not None:
        return warning(_POINT, f"{text}; without a second look: {written.problem}")
    return ok(_POINT, text)
