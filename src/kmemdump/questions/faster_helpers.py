# SPDX-License-Identifier: GPL-2.0-or-later
"""
Helpers of drgn's that its commands call, so that a look costs what changed.

Each reads the same memory as drgn's own, or finds what it made of it at the last look.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from drgn import Object, Program, sizeof
from drgn.helpers.linux.list import hlist_for_each_entry
from drgn.helpers.linux.panic import panic_message as drgn_panic_message

from kmemdump.kernel.task_list import all_tasks
from kmemdump.memory.recorder import current_recorder
from kmemdump.questions.objects import each

__all__ = ["FASTER_HELPERS"]

_HEAD = struct.Struct("<Q")


def for_each_task(prog: Program, *, idle: bool = False) -> Iterator[Object]:
    """Yield the tasks that changed; all if nobody looks again."""
    return each("tasks", all_tasks(prog, idle=idle))


def panic_message(prog: Program) -> bytes | None:
    """Return the message with which the kernel panicked: of the whole log."""
    recorder = current_recorder()
    if recorder is None:
        return drgn_panic_message(prog)
    return recorder.memo("panic message", lambda: drgn_panic_message(prog))


def timer_base_for_each(base: Object) -> Iterator[Object]:
    """Yield the timers of a base, whose heads are read at once."""
    heads = base.vectors
    data = base.prog_.read(heads.address_, sizeof(heads))
    for number, (first,) in enumerate(_HEAD.iter_unpack(data)):
        if first:
            head = heads[number].address_of_()
            yield from hlist_for_each_entry("struct timer_list", head, "entry")


FASTER_HELPERS: Mapping[str, Callable[..., Any]] = {
    "for_each_task": for_each_task,
    "panic_message": panic_message,
    "timer_base_for_each": timer_base_for_each,
}
"""By the names of drgn's helpers."""
