# SPDX-License-Identifier: GPL-2.0-or-later
"""The program's start, and what goes on while the command line is loaded."""

from __future__ import annotations

import gc
import io
import os
import sys
from contextlib import suppress

TYPE_CHECKING = False  # As typing has it, for which not everybody can wait.
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from kmemdump.collect.early import EarlyCopy

__all__ = ["begin", "run"]


def run() -> NoReturn:
    """Run the command line and exit."""
    # What is loaded stays, and looking for garbage in it again and again takes 10 ms.
    gc.set_threshold(50_000)
    _prepare_streams()
    begun = None
    try:
        begun = begin(sys.argv[1:])
        from kmemdump.cli.main import main

        status = main(begun=begun)
    except KeyboardInterrupt:  # While that was loaded.
        print("kmemdump: stopped", file=sys.stderr)
        status = 130
    finally:
        if begun is not None:
            begun.discard()  # If no verb has taken it.
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # Nobody listens any more.
            stream.flush()
    # The kernel takes everything back, and Python needs 10 ms to do it first.
    os._exit(status)


def _prepare_streams() -> None:
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # Closed: another file must not get its number.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names of files, and what a dead kernel holds, may be in no encoding.
            stream.reconfigure(errors="backslashreplace")


def begin(arguments: Sequence[str]) -> EarlyCopy | None:
    """
    Begin what a plain ``kmemdump collect SOURCE -o CORE`` takes longest for.

    Loading click takes as long as copying many a dump. Whoever says more than that
    gets all the rest from the verb, a little later.
    """
    match arguments:
        case ["collect", source, "-o" | "--output", output]:
            pass
        case ["collect", "-o" | "--output", output, source]:
            pass
        case _:
            return None
    if source.startswith("-") or output.startswith("-"):
        return None
    from kmemdump.collect.early import EarlyCopy
    from kmemdump.errors import KmemdumpError

    try:
        return EarlyCopy(source, output)
    except KmemdumpError:
        return None  # The verb meets it again, and tells.
