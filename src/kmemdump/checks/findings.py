# SPDX-License-Identifier: GPL-2.0-or-later
"""Collects what a check finds, point by point."""

from __future__ import annotations

from collections.abc import Callable

from kmemdump.checks.point import Check, Point, Rehearsal

__all__ = ["Findings"]


class Findings:
    """
    What a check has found so far.

    :param target: Name of the target, as a user would give it.
    :param show: Called with each point, when it is found.
    """

    def __init__(self, target: str, show: Callable[[Point], None]) -> None:
        self._target = target
        self._show = show
        self._points: list[Point] = []
        self.release: str | None = None
        """Release of the kernel, once it is known."""
        self.core: Rehearsal | None = None
        """The core image, once it was rehearsed."""

    def add(self, *points: Point) -> None:
        """Add points."""
        for point in points:
            self._points.append(point)
            self._show(point)

    @property
    def check(self) -> Check:
        """The result up to now."""
        return Check(self._target, tuple(self._points), self.release, self.core)
