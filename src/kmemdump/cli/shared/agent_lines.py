# SPDX-License-Identifier: GPL-2.0-or-later
"""The status of agents, for people and programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from kmemdump.agent.status import Status
from kmemdump.text import format_duration, format_size

__all__ = ["agent_is_ill", "agent_lines", "agent_record"]


def agent_is_ill(status: Status, now: float) -> bool:
    """Return whether something of an agent is missing, late or dead."""
    failed = bool(status.failure) or bool(status.problems)
    return not status.alive or failed or status.is_late(now)


def agent_record(status: Status) -> dict[str, object]:
    """Return an agent's status as JSON has it."""
    return {"version": 1, **asdict(status)}


def agent_lines(status: Status, now: float) -> Iterator[str]:
    """Yield lines about an agent."""
    who = f"process {status.pid}, since {format_duration(max(now - status.started, 0))}"
    if not status.alive:
        who = f"process {status.pid} is gone; what it registered is still there"
    yield f"{status.table}: kernel {status.kernel}; {who}"
    age = format_duration(max(now - status.marked, 0))
    yield (
        f"  holds   {status.regions} regions, {format_size(status.bytes)}, looked at "
        f"{age} ago, every {format_duration(status.interval)}"
    )
    yield f"  looks   {status.refreshes} again, {status.failures} of them failed"
    cost = status.cost
    yield (
        f"  costs   {format_size(cost.memory)} of memory (at most "
        f"{format_size(cost.most_memory)}), {cost.share:.2%} of one CPU "
        f"({cost.each_look:.2f} s each look, {cost.first_look:.1f} s the first)"
    )
    if status.failure:
        yield f"  failed  {status.failure}"
    for problem in status.problems:
        yield f"  lacks   {problem}"
