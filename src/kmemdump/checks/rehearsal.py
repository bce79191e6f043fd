# SPDX-License-Identifier: GPL-2.0-or-later
"""Rehearse a death: write the core image of a kernel that lives, and inspect it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kmemdump.checks.point import Point, Rehearsal, missing, ok, warning
from kmemdump.errors import KmemdumpError
from kmemdump.opening import open_target
from kmemdump.report.inspect import Inspection, inspect, shorten
from kmemdump.text import format_size, printable

__all__ = ["Rehearsed", "Written", "rehearse"]

_PREFIX = ".kmemdump-check-"
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


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """The result of a rehearsal."""

    points: tuple[Point, ...]
    core: Rehearsal | None = None
    inspection: Inspection | None = None


def rehearse(write: Callable[[Path], Written], folder: Path | None) -> Rehearsed:
    """
    Write a core image as after a death, inspect it, and remove it.

    :param write: Writes it to a path.
    :param folder: Where core images are to be written. If it does not exist yet, or
        cannot be written to, temporary files take its place.
    """
    places = [folder] if folder is not None and folder.is_dir() else []
    problems: list[str] = []
    for place in (*places, None):
        try:
            written, inspection, damage = _write_and_inspect(write, place)
        except (KmemdumpError, OSError) as error:
            problems.append(printable(str(error).splitlines()[0]))
            continue
        points = [_describe(written, damage, "" if place else " (a temporary file)")]
        if problems:
            points.insert(0, missing("writing", problems[0], "make room, or see why"))
        return Rehearsed(tuple(points), written.core, inspection)
    return Rehearsed(tuple(missing(_POINT, text) for text in problems))


def _write_and_inspect(
    write: Callable[[Path], Written], place: Path | None
) -> tuple[Written, Inspection, list[str]]:
    scratch = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
    try:
        path = scratch / _NAME
        written = write(path)
        with open_target(str(path)) as target:
            inspection = inspect(target, path)
        return written, inspection, shorten(inspection.problems)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _describe(written: Written, damage: list[str], where: str) -> Point:
    core = written.core
    text = f"{format_size(core.size)} in {core.finished:.2f} s{where}"
    if core.named < core.finished:
        text += f", what was marked before after {core.named:.2f} s"
    if damage:
        return missing(_POINT, f"{text}; damaged: {printable('; '.join(damage))}")
    if written.missing:
        return missing(_POINT, f"{text}; it lacks {written.missing} ranges of memory")
    if written.problem is not None:
        return warning(_POINT, f"{text}; without a second look: {written.problem}")
    return ok(_POINT, text)
