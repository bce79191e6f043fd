# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether this machine's crash kernel would run, and for which deaths."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

__all__ = ["CrashKernel", "read_state"]

_PANICS = ("panic_on_oops", "softlockup_panic", "hardlockup_panic")


class CrashKernel(NamedTuple):
    """What /sys and /proc say."""

    loaded: bool
    reserved: int
    """Bytes of memory that it has."""
    survivable: tuple[str, ...]
    """Settings by which this kernel lives on after a fault or a hang: no panic."""


def read_state(root: Path = Path("/")) -> CrashKernel:
    """
    Return the state of this machine's crash kernel.

    :param root: The folder with ``proc`` and ``sys``.
    """
    return CrashKernel(
        _read(root / "sys/kernel/kexec_crash_loaded") == 1,
        _read(root / "sys/kernel/kexec_crash_size") or 0,
        tuple(name for name in _PANICS if _read(root / "proc/sys/kernel" / name) == 0),
    )


def _read(path: Path) -> int | None:
    """Return the number in a file; ``None`` if there is none."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
