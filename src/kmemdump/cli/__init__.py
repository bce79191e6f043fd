# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: one file for each verb, and no logic."""

import gc
import io
import sys

# Imports make many objects and hardly any garbage: by default, one second in ten of
# their time goes into looking for some.
gc.set_threshold(50_000)

from kmemdump.cli.main import main  # noqa: E402

__all__ = ["main", "run"]


def run() -> None:
    """Run the command line and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names of files, and what a dead kernel holds, may be in no encoding.
            stream.reconfigure(errors="backslashreplace")
    sys.exit(main())
