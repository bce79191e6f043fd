# SPDX-License-Identifier: GPL-2.0-or-later
"""What several verbs print as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kmemdump.marking.plan import Plan
    from kmemdump.marking.registration import RefreshResult
    from kmemdump.marking.registry import Refusal

__all__ = ["plan_record", "refresh_record", "refusal_record"]


def plan_record(planned: Plan) -> dict[str, Any]:
    """Return how much of each area fits into a firmware's table."""
    return {
        "version": 1,
        "rows": planned.capacity,
        "regions": len(planned.regions),
        "bytes": planned.size,
        "extra": planned.extra,
        "areas": [
            {
                "name": area.result.name,
                "bytes": area.size,
                "extra": area.extra,
                "fits": area.left_out is None,
                "reason": area.left_out or area.result.reason,
            }
            for area in planned.areas
        ],
    }


def refresh_record(result: RefreshResult) -> dict[str, Any]:
    """Return what a look at a kernel registered, and what it did not."""
    return {
        **plan_record(result.plan),
        "added": result.added,
        "removed": result.removed,
        "refused": [refusal_record(refusal) for refusal in result.refused],
        "problems": result.problems,
        "seconds": round(result.seconds, 6),
    }


def refusal_record(refusal: Refusal) -> dict[str, Any]:
    """Return a region that was refused, and why."""
    region = refusal.region
    return {
        "name": region.name,
        "address": hex(region.range.start),
        "size": region.range.size,
        "reason": refusal.reason,
    }
