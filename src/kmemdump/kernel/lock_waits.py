# SPDX-License-Identifier: GPL-2.0-or-later
"""
Which lock a blocked task waits for, and which task holds it.

Newer kernels note the lock in the task: ``blocker`` for the hung-task detector
(include/linux/hung_task.h, CONFIG_DETECT_HUNG_TASK_BLOCKER), and ``blocked_on`` for
proxy execution. Real-time mutexes always did (``pi_blocked_on``). Elsewhere, a task
that waits has an entry of the lock's list of waiters on its stack, and that names the
task.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from drgn import FaultError, Object, Program, offsetof
from drgn.helpers.linux.sched import task_state_to_char

from kmemdump.arch.architecture import arch_from_program
from kmemdump.kernel.limits import MAX_TASKS
from kmemdump.kernel.optional import ABSENT, optional
from kmemdump.kernel.symbol_names import base_name
from kmemdump.kernel.task_list import all_tasks
from kmemdump.kernel.tasks import task_address
from kmemdump.memory.ranges import ADDRESS_SPACE

__all__ = ["LockWait", "find_lock_waits"]

_MAX_WAITS = 1000
_MAX_WAITERS = 1000
"""Of one lock."""
_MAX_STACK = 1 << 17
_INNERMOST = 10
"""Frames of which one is the wait for a lock."""
_MUTEX, _SEMAPHORE, _RW_SEMAPHORE = "mutex", "semaphore", "rw-semaphore"
_RT_MUTEX, _COMPLETION = "rt-mutex", "completion"
_BLOCKERS = (_MUTEX, _SEMAPHORE, _RW_SEMAPHORE, _RW_SEMAPHORE)
"""By the two lowest bits of ``blocker`` (include/linux/hung_task.h)."""
_OWNER_FLAGS = 7
"""Of a mutex's owner (kernel/locking/mutex.h), and an rw_semaphore's (rwsem.c)."""
_READER_OWNED = 1
"""Of an rw_semaphore's owner: it is a reader, and may be gone."""
_HAS_WAITERS = 1
"""Of an rt_mutex's owner (kernel/locking/rtmutex_common.h)."""
_WORD = 8


@dataclass(frozen=True, slots=True)
class LockWait:
    """A task that waits for a lock."""

    task: Object
    """``struct task_struct *``"""
    kind: str
    """The kind of lock, as the kernel's hung-task detector names it."""
    address: int
    """Of the lock."""
    owner: Object | None
    """The task that holds it, if the lock says so."""
    sure: bool = True
    """Whether the owner is more than the last one that is known."""


@dataclass(frozen=True, slots=True)
class _Waiter:
    """How a task waits for a kind of lock: an entry of a list, on its stack."""

    kind: str
    functions: re.Pattern[str]
    """That put the entry there."""
    entry: str
    """Its type, which has the task."""
    link: str
    """Its member that is in the list."""
    lock: str
    head: str
    """The lock's member that is the list."""


_WAITERS = (
    _Waiter(
        _MUTEX,
        re.compile(r"_*(?:ww_)?mutex_lock\w*"),
        "struct mutex_waiter",
        "list",
        "struct mutex",
        "wait_list",
    ),
    _Waiter(
        _RW_SEMAPHORE,
        re.compile(r"rwsem_down_\w+|_*down_(?:read|write)\w*"),
        "struct rwsem_waiter",
        "list",
        "struct rw_semaphore",
        "wait_list",
    ),
    _Waiter(
        _SEMAPHORE,
        re.compile(r"_*down(?:_common|_timeout|_interruptible|_killable)?"),
        "struct semaphore_waiter",
        "list",
        "struct semaphore",
        "wait_list",
    ),
    _Waiter(
        _COMPLETION,
        re.compile(r"(?:do_|_*)wait_for_(?:common|completion)\w*"),
        "struct swait_queue",
        "task_list",
        "struct completion",
        "wait.task_list",
    ),
)
_FIRST = "first_waiter"
"""Member of locks without a list's head: those of Linux 7.1 and later."""


@dataclass(frozen=True, slots=True)
class _Stack:
    """The part of a task's stack that is in use."""

    start: int
    words: tuple[int, ...]
    functions: tuple[str, ...]
    """The innermost ones, innermost first."""


def find_lock_waits(prog: Program) -> Iterator[LockWait]:
    """Yield what each task in state D waits for, if that is a lock."""
    tasks = {task_address(task): task for task in islice(all_tasks(prog), MAX_TASKS)}
    blocked = (task for task in tasks.values() if _is_blocked(task))
    for task in islice(blocked, _MAX_WAITS):
        try:
            found = _find_lock(task, tasks)
            if found is not None:
                yield _with_owner(task, *found, tasks)
        except ABSENT:
            continue


def _is_blocked(task: Object) -> bool:
    return optional(lambda: task_state_to_char(task)) == "D"


def _find_lock(task: Object, tasks: Mapping[int, Object]) -> tuple[str, int] | None:
    """Return the kind and address of the lock that a task waits for."""
    blocker = optional(lambda: task.blocker.value_())
    if blocker:
        return _BLOCKERS[blocker & 3], blocker & ~3
    mutex = optional(lambda: task.blocked_on.read_())
    if mutex is not None and mutex and mutex.type_.type.tag == "mutex":
        return _MUTEX, mutex.value_()
    waiter = optional(lambda: task.pi_blocked_on.read_())
    if waiter is not None and waiter:
        return _RT_MUTEX, waiter.lock.value_()
    stack = _read_stack(task)
    for name in stack.functions:
        for kind in _WAITERS:
            if kind.functions.fullmatch(name):
                address = _lock_of_entry(task, stack, kind, tasks)
                return None if address is None else (kind.kind, address)
    return None


def _read_stack(task: Object) -> _Stack:
    prog = task.prog_
    trace = prog.stack_trace(task)
    names = tuple(base_name(frame.name or "") for frame in islice(trace, _INNERMOST))
    start, size = trace[0].sp, prog["THREAD_SIZE"].value_()
    low = arch_from_program(prog).untagged(task.stack.value_())
    if not (0 < size <= _MAX_STACK and low <= start < low + size):
        return _Stack(start, (), names)
    data = prog.read(start, (low + size - start) // _WORD * _WORD)
    return _Stack(start, struct.unpack(f"<{len(data) // _WORD}Q", data), names)


def _lock_of_entry(
    task: Object, stack: _Stack, kind: _Waiter, tasks: Mapping[int, Object]
) -> int | None:
    prog = task.prog_
    entry, lock = prog.type(kind.entry), prog.type(kind.lock)
    to_task = offsetof(entry, "task") - offsetof(entry, kind.link)
    untagged = arch_from_program(prog).untagged
    for number, word in enumerate(stack.words):
        if untagged(word) != task_address(task):
            continue
        link = stack.start + number * _WORD - to_task
        try:
            ring = list(_ring(prog, link, to_task, tasks))
        except FaultError:
            continue
        if lock.has_member(_FIRST):
            entries = {at - offsetof(entry, kind.link) for at in ring}
            found = _lock_on_stack(prog, stack, offsetof(lock, _FIRST), entries)
        else:
            # The head is the one of the ring that is no task's.
            head = next((at for at in ring if not _waits(prog, at, to_task, tasks)), 0)
            found = head - offsetof(lock, kind.head) if head else None
        if found is not None:
            return found
    return None


def _ring(
    prog: Program, link: int, to_task: int, tasks: Mapping[int, Object]
) -> Iterator[int]:
    """Yield the members of a list from one on; each must point back to the last."""
    at = link
    for _ in range(_MAX_WAITERS):
        yield at
        following = _word(prog, at)
        if _word(prog, following + _WORD) != at:
            raise FaultError("no list", following)
        if following == link or not _waits(prog, at, to_task, tasks):
            return
        at = following


def _waits(prog: Program, link: int, to_task: int, tasks: Mapping[int, Object]) -> bool:
    """Return whether an entry of a list is on the stack of the task that it names."""
    arch = arch_from_program(prog)
    try:
        task = tasks.get(arch.untagged(_word(prog, link + to_task)))
        if task is None:
            return False
        start = arch.untagged(task.stack.value_())
    except FaultError:
        return False
    size: int = prog["THREAD_SIZE"].value_()
    return 0 <= arch.untagged(link) - start < size


def _lock_on_stack(
    prog: Program, stack: _Stack, offset: int, entries: set[int]
) -> int | None:
    """Return the lock whose first waiter is known; its address is on the stack."""
    arch = arch_from_program(prog)
    for word in dict.fromkeys(stack.words):
        if word % _WORD or not arch.is_kernel_address(word):
            continue
        try:
            if _word(prog, word + offset) in entries:
                return word
        except FaultError:
            continue
    return None


def _with_owner(
    task: Object, kind: str, address: int, tasks: Mapping[int, Object]
) -> LockWait:
    owner, sure = 0, True
    prog = task.prog_
    if kind == _MUTEX:
        owner = _member(prog, "struct mutex", "owner", address) & ~_OWNER_FLAGS
    elif kind == _RW_SEMAPHORE:
        word = _member(prog, "struct rw_semaphore", "owner", address)
        owner, sure = word & ~_OWNER_FLAGS, not word & _READER_OWNED
    elif kind == _SEMAPHORE:
        owner = _member(prog, "struct semaphore", "last_holder", address)
        sure = False
    elif kind == _RT_MUTEX:
        lock = "struct rt_mutex_base"
        if optional(lambda: prog.type(lock)) is None:
            lock = "struct rt_mutex"
        owner = _member(prog, lock, "owner", address) & ~_HAS_WAITERS
    found = tasks.get(arch_from_program(prog).untagged(owner)) if owner else None
    return LockWait(task, kind, address, found, sure)


def _member(prog: Program, lock: str, name: str, address: int) -> int:
    """Read a word of a lock; 0 if the lock has none of that name, or is not there."""
    try:
        return _word(prog, address + offsetof(prog.type(lock), name))
    except ABSENT:
        return 0


def _word(prog: Program, address: int) -> int:
    word: int = prog.read_word(address % ADDRESS_SPACE)
    return word
