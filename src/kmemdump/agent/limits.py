# SPDX-License-Identifier: GPL-2.0-or-later
"""
Limits of the agent's looks, which hold in C code.

Memory changes while it is read: drgn may take forever on a list or a type that is torn,
or all memory. The kernel then ends the agent; what it registered stays. Its service
manager starts another one, which finds in a file in which step the last one was, and
leaves that out for some hours.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from pathlib import Path

from kmemdump.bounds.page import STATE_SIZE, StatePage
from kmemdump.bounds.steps import Limits, Refusal, limit_process
from kmemdump.errors import TargetError
from kmemdump.files import PartialFile

__all__ = ["limit_looks"]

_FORGET = 6 * 3600.0
"""Seconds for which a step is left out: the machine may have been busy."""
_MOST = 8
"""Most steps that are left out; a look has about fifty."""
_REASON = "left out: the agent that did it was ended"


def limit_looks(folder: Path | None, name: str) -> None:
    """
    Limit each step of this process from now on.

    :param folder: Where the file is that outlives the process; ``None`` keeps none.
    :param name: Of the table, in file names. This process must have locked it.
    :raises TargetError: If the file cannot be made.
    """
    page = StatePage()
    refused: dict[str, float] = {}
    if folder is not None:
        page.close()
        page = _open(folder / f"{name}.step")
        known = folder / f"{name}.refused"
        refused = _read(known)
        if page.step:
            refused[page.step] = time.monotonic() + _FORGET
            refused = dict(sorted(refused.items(), key=lambda it: it[1])[-_MOST:])
            with PartialFile(known) as file:
                file.write(json.dumps(refused).encode())
            page.end()
    left_out = {what: Refusal(_REASON, until) for what, until in refused.items()}
    limit_process(page, Limits(), left_out, cpu=math.inf)


def _open(path: Path) -> StatePage:
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(path, flags, 0o600)
        os.ftruncate(fd, STATE_SIZE)
    except OSError as error:
        raise TargetError(f"{path}: {error.strerror}") from error
    return StatePage(fd)


def _read(path: Path) -> dict[str, float]:
    """Return what is left out, and until when; nothing of an earlier boot."""
    now = time.monotonic()
    with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
        return {
            str(what): until
            for what, until in json.loads(path.read_bytes()).items()
            if now < until <= now + _FORGET
        }
    return {}
