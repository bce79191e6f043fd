# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows of deaths that nobody died, as many as wanted."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

from kmemdump.catalogue.row import Row

__all__ = ["START", "made_row"]

START = datetime(2026, 11, 1, tzinfo=UTC)


def made_row(number: int, **fields: object) -> Row:
    """Return a row; *fields* replace what it has."""
    died = START + timedelta(hours=number)
    given: dict[str, object] = {
        "content": hashlib.sha256(str(number).encode()).hexdigest(),
        "source": f"/srv/{number}.core",
        "added": died + timedelta(hours=1),
        "added_by": "host",
        "size": 5_000_000 + number,
        "modified": died,
        "died": died,
        "kind": "oops",
        "signature": "oops in ext4_put < vfs_close",
        "function": "ext4_put",
        "sentence": f"The kernel used a freed inode (number {number}).",
        "release": "6.12.1-amd64",
        "machine": f"vm{number}",
        "complete": True,
        **fields,
    }
    return Row(**given)  # type: ignore[arg-type]
