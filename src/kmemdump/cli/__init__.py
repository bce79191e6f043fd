# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: one file for each verb, and no logic."""

import gc
import io
import sys

from kmemdump.cli.main import main

__all__ = ["main", "run"]


def run() -> None:
    """Run the command line and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names of files, and what a dead kernel holds, may be in no encoding.
            stream.reconfigure(errors="backslashreplace")
    status = main()
    # The kernel takes all memory back; looking for garbage in it first takes 15 ms.
    gc.freeze()
    sys.exit(status)
