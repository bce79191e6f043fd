# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands of this machine, whose failures are errors."""

import os
import subprocess
from pathlib import Path

from kmemdump.errors import UnsupportedError

__all__ = ["ENDS_WITH_US", "CommandError", "attempt", "run"]

ENDS_WITH_US = ("setpriv", "--pdeathsig", "TERM", "--")
"""
What a command begins with that takes long: it ends when this process is killed. Of
util-linux, which every Debian has; busybox's cannot do it.
"""


class CommandError(UnsupportedError):
    """A command failed; the message has its last line."""


def run(*argv: str, cwd: Path | None = None, long: bool = False) -> str:
    """
    Run a command and return its output.

    :param long: Whether it may take long; see `ENDS_WITH_US`.
    :raises CommandError: If it fails.
    :raises UnsupportedError: If it is not installed.
    """
    done = attempt(*argv, cwd=cwd, long=long)
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise CommandError(f"{' '.join(argv)}: {words[-1]}")
    return done.stdout


def attempt(
    *argv: str, cwd: Path | None = None, long: bool = False
) -> subprocess.CompletedProcess[str]:
    """
    Run a command that may fail.

    :param long: Whether it may take long; see `ENDS_WITH_US`.
    :raises UnsupportedError: If it is not installed.
    """
    command = (*ENDS_WITH_US, *argv) if long else argv
    try:
        return subprocess.run(
            command,
            cwd=cwd,
            env=os.environ | {"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
    except FileNotFoundError as e:
        raise UnsupportedError(f"{command[0]} is not installed") from e
