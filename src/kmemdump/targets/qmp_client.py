# SPDX-License-Identifier: GPL-2.0-or-later
"""
A synchronous QMP connection, in which every wait has a deadline.

The library qemu.qmp is asynchronous. Each connection runs it in a thread of its own,
so that events arrive while no answer is awaited.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from qemu.qmp import ConnectError, ExecuteError, QMPClient, QMPError
from qemu.qmp.message import Message

from kmemdump.errors import TargetError
from kmemdump.targets.peer import peer_of
from kmemdump.targets.qmp_channel import (
    QmpChannel,
    QmpCommandError,
    QmpTimeoutError,
)

__all__ = ["QmpClient", "QmpCommandError", "QmpTimeoutError", "socket_address"]

DEFAULT_TIMEOUT = 10.0
"""Seconds that QEMU has for each answer."""

_CLOSE_TIMEOUT = 2.0
_T = TypeVar("_T")

# The caller reports a VM that goes away; the library would report it once more, on
# standard error.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL + 1)


class QmpClient(QmpChannel):
    """
    A connection to a QMP monitor of a VM. A monitor takes one client at a time.

    All methods may be called from any thread.

    :param address: Unix socket, or a socket that is connected and is closed with this.
    :param timeout: Seconds that QEMU has for the greeting and for each answer, unless
        a call says otherwise.
    :raises TargetError: If no QEMU answers there.
    """

    def __init__(
        self, address: Path | socket.socket, timeout: float = DEFAULT_TIMEOUT
    ) -> None:
        deadline = time.monotonic() + timeout
        if isinstance(address, socket.socket):
            super().__init__("the monitor of QEMU")
            connection = address
        else:
            super().__init__(str(address))
            connection = _connect(address, deadline)
        self.peer, self.user, _ = peer_of(connection)
        self._timeout = timeout
        self._qmp = QMPClient()
        # It would take an event that comes before QEMU's answer for a refusal.
        self._qmp.negotiate = False
        self._qmp.events.event_filter = self._take_event
        self._loop = asyncio.new_event_loop()
        # The next call reports a lost connection; asyncio would print
        # "_GatheringFuture exception was never retrieved" as well.
        self._loop.set_exception_handler(lambda _loop, _context: None)
        self._closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name=f"qmp:{self.name}", daemon=True
        )
        self._thread.start()
        # Without it, asyncio complains when a program exits without closing.
        atexit.register(self.close)
        try:
            left = max(deadline - time.monotonic(), 0.1)
            self._run(self._qmp.connect(connection), left, "the greeting")
            left = max(deadline - time.monotonic(), 0.1)
            self.execute("qmp_capabilities", timeout=left)
        except BaseException:
            self.close()
            raise
        finally:
            if self._qmp.runstate.name == "IDLE":
                connection.close()

    def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        timeout: float | None = None,
    ) -> object:
        """
        Execute a QMP command and return its answer.

        :param timeout: Seconds.
        :raises QmpCommandError: If QEMU refuses the command.
        :raises TargetError: If QEMU does not answer in time, or went away.
        """
        sent = dict(arguments) if arguments else None
        return self._run(self._qmp.execute(command, sent), timeout, command)

    def send_fd(self, fd: int, name: str) -> None:
        """Give QEMU a copy of a file descriptor; *name* names it in commands."""

        async def send() -> None:
            # QEMU's getfd uses the descriptor that arrived last.
            self._qmp.send_fd_scm(fd)
            await self._qmp.execute("getfd", {"fdname": name})

        self._run(send(), None, "getfd")

    def _take_event(self, event: Message) -> bool:
        # The library's own queue, which would keep every event for ever, gets none.
        self._keep_event(dict(event))
        return False

    @property
    def connected(self) -> bool:
        """Whether QEMU is still there, as far as is known."""
        return not self._closed and self._qmp.runstate.name == "RUNNING"

    def close(self) -> None:
        """Disconnect. Does not fail and does not hang."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        atexit.unregister(self.close)
        with contextlib.suppress(TimeoutError):
            future = asyncio.run_coroutine_threadsafe(self._shut(), self._loop)
            future.result(2 * _CLOSE_TIMEOUT)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_TIMEOUT)
        if not self._thread.is_alive():
            self._loop.close()

    async def _shut(self) -> None:
        # The call that failed has reported why the connection ended.
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._qmp.disconnect(), _CLOSE_TIMEOUT)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _run(
        self, work: Coroutine[object, object, _T], timeout: float | None, what: str
    ) -> _T:
        """Run *work* in the connection's thread; raise TargetError if it fails."""
        if self._closed:
            work.close()
            raise TargetError(f"{self.name}: {what}: the connection is closed")
        seconds = self._timeout if timeout is None else timeout
        limited = asyncio.wait_for(work, seconds)
        future = asyncio.run_coroutine_threadsafe(limited, self._loop)
        try:
            return future.result(seconds + 1)
        except TimeoutError:
            future.cancel()
            problem = f"{self.name}: {what}: no answer from QEMU in {seconds:.1f} s"
            if what == "the greeting":
                problem += (
                    "\nQEMU takes one QMP client at a time: is another one connected?"
                )
            raise QmpTimeoutError(problem) from None
        except ExecuteError as error:
            raise QmpCommandError(f"{self.name}: {what}: QEMU says: {error}") from error
        except ConnectError as error:
            if isinstance(error.exc, EOFError | ConnectionError):
                raise TargetError(
                    f"{self.name}: the connection was closed before a greeting; "
                    "the VM is going away, or does not speak QMP"
                ) from error
            raise TargetError(
                f"{self.name}: does not speak QMP ({error}), "
                "expected QEMU's -qmp unix:PATH,server=on"
            ) from error
        # qemu.qmp asserts that a peer does not hang up just after its greeting.
        except (QMPError, EOFError, OSError, AssertionError, asyncio.CancelledError,
                concurrent.futures.CancelledError) as error:  # fmt: skip
            raise TargetError(f"{self.name}: {what}: the VM went away") from error


@contextlib.contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """
    Yield an address of a Unix socket that is short enough, whatever its path.

    :raises OSError: If its folder cannot be opened.
    """
    # sun_path has 108 bytes; a path through its folder always fits.
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _connect(path: Path, deadline: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(max(deadline - time.monotonic(), 0.1))
    try:
        with socket_address(path) as address:
            while True:
                try:
                    connection.connect(address)
                    break
                except BlockingIOError:
                    # The queue of clients that wait for QEMU's accept() is full.
                    if time.monotonic() > deadline:
                        raise TimeoutError("QEMU does not accept connections") from None
                    time.sleep(0.05)
        connection.settimeout(None)
    except OSError as error:
        connection.close()
        problem = error.strerror or str(error)
        raise TargetError(
            f"{path}: cannot connect: {problem}, "
            "expected a socket of QEMU's -qmp unix:PATH,server=on"
        ) from error
    return connection
