# SPDX-License-Identifier: GPL-2.0-or-later
"""
Which locks each task holds, as lockdep notes it (CONFIG_LOCKDEP).

A task has a list of its locks, ``held_locks`` of ``struct task_struct``. Since Linux
kernel commit 01bb6f0af992 ("locking/lockdep: Change the range of class_idx in held_lock
struct") (in v5.2), each has the place of its class in ``lock_classes``, which has the
name (kernel/locking/lockdep.c).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from drgn import Object, Program, sizeof

from kmemdump.kernel.lock_waits import find_lock_waits
from kmemdump.kernel.optional import optional
from kmemdump.kernel.symbol_at import find_symbol
from kmemdump.kernel.tasks import task_address
from kmemdump.text import printable

__all__ = [
    "HeldLock",
    "awaited_locks",
    "has_lockdep",
    "held_locks",
    "lockdep_stopped",
]

_MAX_NAME = 200
_STATES = (0, 1, 4, 5)
"""Usage bits: in a hard interrupt, that of a reader, and the same of soft ones."""
_ENABLED = 2
"""From a usage bit to the one that says that such interrupts were on."""
_WITH_MAP = {"mutex": "struct mutex", "rw-semaphore": "struct rw_semaphore"}
"""Kinds of lock, as a wait names them, that have lockdep's map in them."""


@dataclass(frozen=True, slots=True)
class HeldLock:
    """A lock that a task holds, or waits for."""

    address: int
    """Of lockdep's map, which is in the lock."""
    name: str
    """Of its class, as the kernel prints it."""
    usage: str
    """How it was used with interrupts on and in interrupts, as the kernel prints it."""
    code: int
    """Address of the code that took it."""
    waiting: bool
    """Whether the task waits for it: lockdep notes a lock before it is taken."""


def has_lockdep(prog: Program) -> bool:
    """Return whether the kernel was built with lockdep."""
    try:
        return bool(prog.type("struct task_struct").has_member("held_locks"))
    except LookupError:
        return False


def lockdep_stopped(prog: Program) -> bool:
    """
    Return whether lockdep notes nothing any more.

    It stops at its first report, and at an oops and a panic. What tasks have of it is
    then as old.
    """
    return optional(lambda: prog["debug_locks"].value_()) == 0


def awaited_locks(prog: Program) -> dict[int, range]:
    """Return where the lock is that a task waits for, by the task's address."""
    return {
        task_address(it.task): range(it.address, it.address + sizeof(prog.type(kind)))
        for it in find_lock_waits(prog)
        if (kind := _WITH_MAP.get(it.kind)) is not None
    }


def held_locks(task: Object, awaited: Mapping[int, range]) -> list[HeldLock]:
    """
    Return the locks of a task, the one that it took first first.

    :param task: ``struct task_struct *``
    :param awaited: What :func:`awaited_locks` returns.
    :raises FaultError: If they cannot be read.
    """
    locks = task.held_locks
    depth = min(max(task.lockdep_depth.value_(), 0), locks.type_.length or 0)
    mine = awaited.get(task_address(task), range(0))
    return [_lock(locks[number], mine) for number in range(depth)]


def _lock(held: Object, awaited: range) -> HeldLock:
    prog, at = held.prog_, held.instance.value_()
    kind = prog["lock_classes"][held.class_idx.value_()]
    used = kind.usage_mask.value_()
    usage = "".join(_usage(used, bit) for bit in _STATES)
    inner = optional(lambda: kind.wait_type_inner.value_())
    if inner is not None:
        outer = optional(lambda: kind.wait_type_outer.value_())
        usage = f"{{{usage}}}-{{{outer or inner}:{inner}}}"
    else:  # Until v5.7.
        usage = f"{{{usage}}}"
    code = held.acquire_ip.value_()
    return HeldLock(at, _name(kind), usage, code, at in awaited)


def _usage(mask: int, bit: int) -> str:
    """Return a state as get_usage_char() of lockdep prints it."""
    enabled, used = mask >> bit + _ENABLED & 1, mask >> bit & 1
    return "?" if enabled and used else "+" if enabled else "-" if used else "."


def _name(kind: Object) -> str:
    pointer = kind.name.read_()
    if not pointer:
        key = kind.key.value_()
        return find_symbol(kind.prog_, key)[0] or f"{key:#x}"
    name = kind.prog_.read_c_string(pointer.value_(), max_size=_MAX_NAME)
    words = printable(name.decode("utf-8", "replace"))
    version, subclass = kind.name_version.value_(), kind.subclass.value_()
    if version > 1:
        words += f"#{version}"
    return f"{words}/{subclass}" if subclass else words
