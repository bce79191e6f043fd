# SPDX-License-Identifier: GPL-2.0-or-later
"""The form of the grammar's rules: how a kind of event begins in a kernel log."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from kmemdump.diagnosis.event_kind import EventKind

__all__ = ["EventPattern", "Place", "Refinement", "Weight"]


class Weight(Enum):
    """What an event means for the kernel."""

    OOPS = "oops"
    """The task at least is lost, and what it held."""
    CORRUPTION = "corruption"
    """Memory is known to be damaged: an oops that follows may come of it."""
    SPLAT = "splat"
    """The kernel only says so."""
    STALL = "stall"
    HARDWARE = "hardware"
    END = "end"
    """The kernel's last act, often for an event before."""


class Place(Enum):
    """Where an event names the function that an expert would look at."""

    COUNTER = "registers, then the stack"
    HEADER = "the line itself, then the stack"
    STACK = "the stack"
    LOCK = "the place where the lock was taken"
    STUCK = "the stack of the CPU or task that does not go on"
    NONE = "nowhere"


@dataclass(frozen=True, slots=True)
class EventPattern:
    """
    A rule of the grammar.

    The words may name groups of the pattern in braces.
    """

    kind: EventKind
    pattern: re.Pattern[str]
    words: str
    """The sentence up to the place, for readers who do not know the kernel."""
    title: str
    """As syzkaller names it, up to the function."""
    weight: Weight
    place: Place
    names_function: bool = True
    """Whether the title ends in the function."""


@dataclass(frozen=True, slots=True)
class Refinement:
    """A rule that makes an event's kind finer by another line of it."""

    kinds: frozenset[EventKind]
    """Kinds to which it applies."""
    pattern: re.Pattern[str]
    kind: EventKind
    words: str
    title: str
    weight: Weight | None = None
    """``None``: as before."""
