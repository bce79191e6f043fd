# SPDX-License-Identifier: GPL-2.0-or-later
"""What went, and what stays, in numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

__all__ = ["Tally"]


@dataclass
class Tally:
    """Counts of bytes and places, by kind of data."""

    removed: Counter[str] = field(default_factory=Counter)
    """Bytes that were not zero or ``x`` before, and are now."""
    places: Counter[str] = field(default_factory=Counter)
    """Texts that were masked, in whole or in part."""
    kept: Counter[str] = field(default_factory=Counter)
    """Bytes of text that stay."""
    text_in_slack: int = 0
    """Of the bytes that no question reads, those that were text."""
    structure: int = 0
    """Bytes that stay and are no text."""

    def add(self, other: Tally) -> None:
        """Add what a further pass removed; what stays is as that pass found it."""
        self.removed += other.removed
        self.places += other.places
        self.text_in_slack += other.text_in_slack
        self.kept, self.structure = other.kept, other.structure
