# SPDX-License-Identifier: GPL-2.0-or-later
"""
Runs programs, and kmemdump as one.

`rigs.verbs` takes less time, but not where a debug file is read: drgn does that in
threads, which a copy of this process would wait for without end.
"""

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["KMEMDUMP", "run", "run_kmemdump"]

KMEMDUMP = (sys.executable, "-m", "kmemdump")


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """
    Run a program to its end; that it fails is no error.

    :param environment: Variables to add to this process's.
    """
    return subprocess.run(
        [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
        timeout=600,
    )


def run_kmemdump(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a verb."""
    return run(*KMEMDUMP, *arguments)
