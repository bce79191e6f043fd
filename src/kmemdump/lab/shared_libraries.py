# SPDX-License-Identifier: GPL-2.0-or-later
"""The shared libraries that programs of this machine need."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

__all__ = ["libraries"]


def libraries(programs: list[Path]) -> set[Path]:
    """Return the shared libraries of this machine that *programs* need."""
    done = subprocess.run(
        ["ldd", *map(str, programs)], capture_output=True, text=True, check=False
    )
    paths = re.findall(r"^\t(?:\S+ => )?(/\S+) \(0x", done.stdout, re.MULTILINE)
    return {
        Path(path) for path in paths if not path.startswith(str(programs[0].parent))
    }
