# SPDX-License-Identifier: GPL-2.0-or-later
"""
Runs programs, and kmemdump as one.

`rigs.verbs` takes less time, but cannot read debug files: drgn reads them in threads,
for which a copy of this process would wait forever.
"""

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["KMEMDUMP", "run", "run_kmemdump"]

KMEMDUMP = (sys.executable, "-m", "kmemdump")


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """
    Run a program to its end; its failure raises nothing.

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
