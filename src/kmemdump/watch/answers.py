# SPDX-License-Identifier: GPL-2.0-or-later
"""Notice that a look at a kernel lost answers that an earlier look gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kmemdump.marking.capture import Capture
from kmemdump.memory.ranges import Region

__all__ = ["Answers", "describe_lost"]

Key = tuple[str, str]
"""Name of an area, and a question of it."""
_MAX_NAMED = 3


class Answers:
    """Which questions a kernel has answered, look by look."""

    def __init__(self) -> None:
        self.lost: Mapping[Key, str] = {}
        """Questions without an answer in the last look that had one before; why."""
        self._given: set[Key] = set()
        self._whole: Sequence[Region] = ()

    def find_lost(self, capture: Capture) -> dict[Key, str]:
        """Return which questions a look did not answer although one before did."""
        return {
            (area.name, item.text): item.reason
            for area in capture.marking.areas
            for item in area.questions
            if item.reason and (area.name, item.text) in self._given
        }

    def take(self, capture: Capture) -> Sequence[Region]:
        """
        Take a look at the kernel.

        :return: The regions to register: if answers were lost, also those of the last
            look that lost none, so that as much as possible can still be answered.
        """
        self.lost = self.find_lost(capture)
        questions = {
            (area.name, item.text): item.reason
            for area in capture.marking.areas
            for item in area.questions
        }
        answered = {key for key, reason in questions.items() if not reason}
        self._given = answered | (self._given & set(questions))
        regions = capture.regions
        if not self.lost:
            self._whole = regions
            return regions
        held = {region.range for region in regions}
        return [*regions, *(it for it in self._whole if it.range not in held)]


def describe_lost(lost: Mapping[Key, str]) -> str:
    """Say in one line which questions have no answer any more, and why."""
    named = []
    for (area, question), reason in list(lost.items())[:_MAX_NAMED]:
        what = question if question == area else f"{question} (area {area})"
        named.append(f"{what}: {reason}")
    more = len(lost) - len(named)
    if more:
        named.append(f"and {more} more")
    return "; ".join(named)
