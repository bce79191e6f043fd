# SPDX-License-Identifier: GPL-2.0-or-later
"""
Steps of work on foreign memory, each with a limit that the kernel enforces.

The budget of a question is looked at when memory is read. Work that reads none, in
drgn's C code, is ended by signals whose default action is to end the process: SIGXCPU
of RLIMIT_CPU, and SIGALRM. Who waits for the process then knows in which step it was,
and may start another one that leaves this step out. Memory that a step may not have is
not given (RLIMIT_DATA), and the step fails.
"""

from __future__ import annotations

import contextlib
import math
import resource
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kmemdump.bounds.page import Partner, StatePage, label
from kmemdump.errors import BudgetExceededError

__all__ = [
    "TOO_MUCH_MEMORY",
    "Limits",
    "Refusal",
    "cpu_used",
    "factors",
    "hand_over",
    "held",
    "hold",
    "limit_process",
    "raise_memory",
    "set_soft_limit",
    "state",
    "step",
]

TOO_MUCH_MEMORY = "the question took more memory than it may"
"""Why a step failed that was refused memory."""

_CPU = 900.0
_MEMORY = 2 << 30
_MEMORY_OF_STEP = 320 << 20
"""Bytes that a step may take besides what was taken before."""
_MEMORY_OF_VMLINUX = 4 << 30
"""Bytes that drgn may take for a debug file, which is the user's own."""
_MARGIN = 5
"""Seconds beyond a budget, which stops a question sooner if that reads memory."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a process. A machine of 64 CPUs and 10,000 tasks takes a tenth."""

    memory: int = _MEMORY
    """Bytes that it may allocate (RLIMIT_DATA)."""
    cpu: float = _CPU
    """CPU seconds for all of its work, from when it is limited."""
    seconds: float = 7200.0
    """Seconds that it may take."""

    @property
    def factor(self) -> float:
        """By how much a step's limits of time are raised with those of all work."""
        return max(self.cpu / _CPU, 1.0)

    @property
    def memory_factor(self) -> float:
        """By how much the limit of memory is raised."""
        return max(self.memory / _MEMORY, 1.0)

    @property
    def memory_of_step(self) -> int:
        """Bytes that a step may allocate; they are raised with those of all work."""
        return int(_MEMORY_OF_STEP * self.memory_factor)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a step is left out."""

    reason: str
    until: float = math.inf
    """Until when: seconds of the monotonic clock, which all processes share."""


class _State:
    """What this process may take, and where it says what it does."""

    def __init__(
        self,
        page: StatePage,
        limits: Limits,
        refused: Mapping[str, Refusal],
        last: str | None,
        cpu: float,
    ) -> None:
        self.page = page
        self.limits = limits
        self.vmlinux = 0
        """Bytes that the kernel's debug file may take besides."""
        self._refused = refused
        self._last = last
        self._end = cpu_used() + cpu
        self._over = ""
        self.before = {
            which: resource.getrlimit(which)[0]
            for which in (
                resource.RLIMIT_CORE,
                resource.RLIMIT_CPU,
                resource.RLIMIT_DATA,
            )
        }

    def begin(self, what: str, cpu: float, wall: float) -> None:
        name = label(what)
        if name == self._last:
            self._over = f"left out: all before took what it may (at {name})"
        found = self._refused.get(name)
        if found is not None and found.until > time.monotonic():
            raise BudgetExceededError(found.reason)
        if self._over:
            raise BudgetExceededError(self._over)
        factor = self.limits.factor
        self.page.begin(name)
        self.limit_cpu(cpu_used() + cpu * factor + _MARGIN)
        signal.setitimer(signal.ITIMER_REAL, wall * factor + _MARGIN)
        self.limit_memory(_allocated() + self.limits.memory_of_step)

    def end(self) -> None:
        self.limit_memory()
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.limit_cpu()
        self.page.end()

    def limit_memory(self, size: float = math.inf) -> None:
        """
        Limit the memory that this process allocates.

        :param size: Bytes; less if that is all that it may allocate.
        """
        size = min(size, self.limits.memory) + self.vmlinux
        set_soft_limit(resource.RLIMIT_DATA, int(size))

    def limit_cpu(self, seconds: float = math.inf) -> None:
        """
        Limit the CPU time of this process.

        :param seconds: Since it was started; less if that is all that it may take.
        """
        seconds = min(seconds, self._end)
        soft = resource.RLIM_INFINITY if math.isinf(seconds) else round(seconds)
        set_soft_limit(resource.RLIMIT_CPU, soft)


_state: _State | None = None
"""None where nothing is limited, as in a program that imports this one."""


def limit_process(
    page: StatePage,
    limits: Limits,
    refused: Mapping[str, Refusal],
    *,
    last: str | None = None,
    cpu: float | None = None,
) -> None:
    """
    Limit this process from now on.

    :param page: Where it says what it does.
    :param refused: Steps that are left out, by their :func:`label`.
    :param last: The step from which on all are left out.
    :param cpu: CPU seconds for all of its work, by default those of *limits*.
    """
    global _state
    cpu = limits.cpu if cpu is None else cpu
    _state = _State(page, limits, refused, last, cpu)
    for number in (signal.SIGXCPU, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    set_soft_limit(resource.RLIMIT_CORE, 0)  # It would hold a guest's memory.
    _state.limit_memory()
    _state.limit_cpu()


def factors() -> tuple[float, float]:
    """Return by how much this process's limits of time and of memory are raised."""
    if _state is None:
        return 1.0, 1.0
    return _state.limits.factor, _state.limits.memory_factor


def state() -> StatePage | None:
    """Return where this process says what it does; None if it is not limited."""
    return None if _state is None else _state.page


@contextlib.contextmanager
def step(what: str, cpu: float, wall: float) -> Iterator[None]:
    """
    Limit the body of the ``with`` statement, which nothing else is to interrupt.

    :param what: Names the step; the same work has the same name.
    :param cpu: CPU seconds that it may take.
    :param wall: Seconds that it may take, if others use the CPU, or a disk is slow.
    :raises BudgetExceededError: If the step is left out, or needs too much memory.
    """
    current = _state
    if current is None:
        yield
        return
    current.begin(what, cpu, wall)
    refused = False
    try:
        yield
    except MemoryError:
        refused = True
    finally:
        current.end()
    if refused:  # Not above: the cause's frames would keep what the step took.
        raise BudgetExceededError(TOO_MUCH_MEMORY)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Keep this process from being ended early during the ``with`` statement."""
    hold(True)
    try:
        yield
    finally:
        hold(False)


def hold(value: bool, name: str = "") -> None:
    """
    Note that this process has something that it must not leave, or no more.

    :param name: Names it for the process that waits for this one.
    """
    if _state is not None:
        _state.page.hold(value, name)


def hand_over() -> None:
    """Lift the limits of this process, which becomes a debugger."""
    if _state is not None:
        _state.page.partner = Partner.DEBUGGER
        for which, value in _state.before.items():
            set_soft_limit(which, value)


def raise_memory() -> None:
    """Allow what the kernel's debug file takes, which the user chose."""
    if _state is not None:
        _state.vmlinux = _MEMORY_OF_VMLINUX
        _state.limit_memory()


def set_soft_limit(which: int, value: int) -> None:
    """Set a soft limit of this process (``RLIMIT_*``), within the hard one."""
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        value = hard if value == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, hard))


def cpu_used() -> float:
    """Return the CPU seconds that this process has taken."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _allocated() -> int:
    """Return the bytes of data that this process has; see proc_pid_statm(5)."""
    pages = int(Path("/proc/self/statm").read_bytes().split()[5])
    return pages * resource.getpagesize()
