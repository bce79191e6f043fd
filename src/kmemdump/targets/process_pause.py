# SPDX-License-Identifier: GPL-2.0-or-later
"""
Stop another process for a while, so that it goes on whatever becomes of this one.

By ptrace(2): Linux lets a process go whose tracer ends. SIGSTOP would leave it stopped
for ever, and its manager would see it stop.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from kmemdump.errors import TargetError

__all__ = ["ProcessPause"]

# Linux include/uapi/linux/ptrace.h and include/uapi/linux/wait.h.
_PTRACE_DETACH = 17
_PTRACE_SEIZE = 0x4206
_PTRACE_INTERRUPT = 0x4207
_PTRACE_EVENT_STOP = 128
_WALL = 0x40000000

_PATIENCE = 2.0
"""Seconds in which all threads must stop; one may wait for a disk."""
_POLL = 0.001
_MAX_THREADS = 1 << 16


def _start_tracer() -> ThreadPoolExecutor:
    # A tracer is a thread, not a process.
    return ThreadPoolExecutor(1, "kmemdump-tracer")


class ProcessPause:
    """
    Stops a process, and lets it go on.

    The methods may be called from any thread.

    :param pid: Of the process.
    :param folder: Its folder in /proc; stays the caller's.
    """

    def __init__(self, pid: int, folder: int) -> None:
        self._name = f"process {pid}"
        self._folder = folder
        self._signals: dict[int, int] = {}
        """Stopped threads, and the signal that each was about to get."""
        self._tracer = _start_tracer()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.ptrace.restype = ctypes.c_long
        self._libc.ptrace.argtypes = (
            *(ctypes.c_long, ctypes.c_long),
            *(ctypes.c_void_p, ctypes.c_void_p),
        )

    @property
    def stopped(self) -> bool:
        """Whether the process is stopped by this object."""
        return bool(self._signals)

    def stop(self) -> None:
        """
        Stop all threads of the process.

        :raises TargetError: If that is impossible; the process runs then.
        """
        try:
            self._tracer.submit(self._stop).result()
        except BaseException:
            # A thread may stop later. The end of its tracer lets it go.
            self._tracer.shutdown()
            self._signals.clear()
            self._tracer = _start_tracer()
            raise

    def cont(self) -> None:
        """Let the process go on."""
        self._tracer.submit(self._cont).result()

    def close(self) -> None:
        """Let the process go on, and release the thread that stopped it."""
        self.cont()
        self._tracer.shutdown()

    def _stop(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        try:
            # A thread that is not stopped yet may start another one.
            while new := [it for it in self._threads() if it not in self._signals]:
                for thread in new:
                    self._stop_thread(thread, deadline)
        except BaseException:
            self._cont()
            raise

    def _threads(self) -> Iterator[int]:
        try:
            task = os.open("task", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder)
        except OSError as error:
            raise TargetError(f"{self._name}: {error.strerror}") from error
        try:
            names = os.listdir(task)
        except OSError as error:
            raise TargetError(f"{self._name}: {error.strerror}") from error
        finally:
            os.close(task)
        return map(int, names[:_MAX_THREADS])

    def _stop_thread(self, thread: int, deadline: float) -> None:
        try:
            self._ptrace(_PTRACE_SEIZE, thread)
            self._signals[thread] = 0
            self._ptrace(_PTRACE_INTERRUPT, thread)
            while True:
                waited, status = os.waitpid(thread, os.WNOHANG | _WALL)
                if waited:
                    break
                if time.monotonic() > deadline:
                    raise TargetError(f"{self._name}: thread {thread} does not stop")
                time.sleep(_POLL)
        except (ProcessLookupError, ChildProcessError):
            self._signals.pop(thread, None)  # It has ended.
            return
        except OSError as error:
            raise TargetError(
                f"{self._name}: cannot stop it: {os.strerror(error.errno or 0)}"
            ) from error
        if not os.WIFSTOPPED(status):
            del self._signals[thread]
        elif status >> 16 != _PTRACE_EVENT_STOP:
            self._signals[thread] = os.WSTOPSIG(status)

    def _cont(self) -> None:
        for thread, number in self._signals.items():
            with suppress(OSError):  # It has ended, or is not stopped yet.
                self._ptrace(_PTRACE_DETACH, thread, number)
        self._signals.clear()

    def _ptrace(self, request: int, thread: int, data: int = 0) -> None:
        if self._libc.ptrace(request, thread, None, data) == -1:
            number = ctypes.get_errno() or errno.EINVAL
            raise OSError(number, os.strerror(number))
