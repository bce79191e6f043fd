# SPDX-License-Identifier: GPL-2.0-or-later
"""Let Python look into the current folder last, where a stranger's files may be."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

__all__ = ["look_there_last"]


class _Elsewhere:
    """Finds modules as Python does, but not in the current folder."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is None:
            path = [folder for folder in sys.path if folder]
        return PathFinder.find_spec(name, path, target)


def look_there_last() -> None:
    """
    Let no module of the current folder come before another one of its name.

    drgn puts the folder first on :data:`sys.path` for what is typed (run_interactive()
    in drgn/cli.py), whatever Python was told (PYTHONSAFEPATH).
    """
    if _Elsewhere not in sys.meta_path:
        sys.meta_path.insert(sys.meta_path.index(PathFinder), _Elsewhere)
