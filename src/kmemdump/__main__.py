# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump``, and ``python -m kmemdump``."""

import gc
import io
import os
import sys
from typing import NoReturn

__all__ = ["run"]

_OBJECTS = 200_000
"""New objects after which circles are looked for; some 20 MB."""


def run() -> NoReturn:
    """Run the command line and exit."""
    # Loading the program and a kernel's types makes many objects and hardly a circle:
    # looking for those takes a tenth of the time until an answer.
    gc.set_threshold(_OBJECTS)
    _prepare_streams()
    ends_at_once = False
    try:
        # Loading takes a moment; Ctrl-C may be pressed meanwhile.
        from kmemdump.bounds.child import ChildEnded
        from kmemdump.bounds.steps import state
        from kmemdump.cli import main

        try:
            status = main(in_children=True)
            ends_at_once = state() is not None
        except ChildEnded as ended:
            status, ends_at_once = ended.status, True
    except KeyboardInterrupt:
        print("kmemdump: stopped", file=sys.stderr)
        status = 130
    _flush_streams()
    if ends_at_once:
        # Two processes that share their memory would both write to it to free it.
        os._exit(status)
    sys.exit(status)


def _prepare_streams() -> None:
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # Closed: another file must not get its number.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # File names and a dead kernel's text may not be valid in any encoding.
            stream.reconfigure(errors="backslashreplace")


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            # The reader is gone or the disk full: Python would complain at its exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    run()
