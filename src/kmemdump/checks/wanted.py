# SPDX-License-Identifier: GPL-2.0-or-later
"""What a death should leave."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from kmemdump.coreimage.retention import Limits
from kmemdump.marking.selection import Selection
from kmemdump.sealing import Seal

__all__ = ["Wanted"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a death should leave, and where."""

    selection: Selection
    """What to mark."""
    folder: Path | None = None
    """Where core images would be written; ``None`` if that is not known."""
    deaths: int = 10
    """Number of core images for which there should be room."""
    limits: Limits = field(default_factory=Limits)
    """How much room core images may take, as for ``watch``."""
    run_folder: Path | None = None
    """Where agents on this machine leave their status."""
    seal: Seal | None = None
    """Who can read core images; ``None``: all who can read the files."""

    def seal_for(self, reader: str | None) -> Seal | None:
        """
        Return how a core image is sealed that is written for a rehearsal.

        :param reader: A public key of who reads it again.
        """
        if self.seal is None or reader is None:
            return self.seal
        return self.seal.and_for([reader])
