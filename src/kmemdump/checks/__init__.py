# SPDX-License-Identifier: GPL-2.0-or-later
"""A rehearsal: would a death now leave the core image that is asked for?"""

from kmemdump.checks.names import find_targets
from kmemdump.checks.point import Check, Point, Rehearsal, State
from kmemdump.checks.run import run_checks
from kmemdump.checks.wanted import Wanted

__all__ = [
    "Check",
    "Point",
    "Rehearsal",
    "State",
    "Wanted",
    "find_targets",
    "run_checks",
]
