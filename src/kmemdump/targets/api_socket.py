# SPDX-License-Identifier: GPL-2.0-or-later
"""HTTP over a Unix socket: the API of Cloud Hypervisor and of Firecracker."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Mapping
from pathlib import Path

from kmemdump.errors import TargetError
from kmemdump.targets.peer import peer_of
from kmemdump.targets.qmp_channel import QmpCommandError, QmpTimeoutError
from kmemdump.targets.qmp_client import socket_address
from kmemdump.text import printable

__all__ = ["ApiSocket"]

_MAX_ANSWER = 4 << 20
_MAX_TEXT = 300
_BAD_REQUEST = 400


class _Connection(http.client.HTTPConnection):
    """An HTTP connection over a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path
        self._opened: socket.socket | None = None

    def connect(self) -> None:
        self.sock = self._opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        with socket_address(self._path) as address:
            self.sock.connect(address)

    def end(self) -> None:
        """End the connection, also while another thread reads an answer."""
        # Not self.sock, which is None while an answer is read that is the last one.
        if self._opened is not None:
            with contextlib.suppress(OSError):
                self._opened.shutdown(socket.SHUT_RDWR)


class ApiSocket:
    """
    The API of a virtual machine monitor.

    :param path: Its socket.
    :param timeout: Seconds that each answer may take, unless a call says otherwise.
    :raises TargetError: If nobody listens there.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self.name = str(path)
        self._path = path
        self._timeout = timeout
        connection = _Connection(path, timeout)
        try:
            connection.connect()
            peer = peer_of(connection.sock)
        except OSError as error:
            raise TargetError(
                f"{path}: cannot connect: {error.strerror or error}, "
                "expected the API socket of a virtual machine monitor"
            ) from error
        finally:
            connection.close()
        self.peer: int = peer.pid
        """PID of the process that listens; 0 if it is in another PID namespace."""

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        timeout: float | None = None,
    ) -> object:
        """
        Send a request, and return the JSON of the answer; None if there is none.

        :param timeout: Seconds.
        :raises QmpCommandError: If the request is refused.
        :raises TargetError: If there is no answer in time, or one that makes no sense.
        """
        seconds = self._timeout if timeout is None else timeout
        connection = _Connection(self._path, seconds)
        headers = {"Accept": "application/json"}
        sent = None
        if body is not None:
            sent = json.dumps(body)
            headers["Content-Type"] = "application/json"
        expired = threading.Event()

        def end() -> None:  # A timeout of a socket is for each part of an answer.
            expired.set()
            connection.end()

        timer = threading.Timer(seconds, end)
        timer.start()
        try:
            connection.request(method, path, sent, headers)
            answer = connection.getresponse()
            data = answer.read(_MAX_ANSWER + 1)
        except (OSError, http.client.HTTPException) as error:
            if not (expired.is_set() or isinstance(error, TimeoutError)):
                raise TargetError(f"{self.name}: {method} {path}: {error}") from error
            expired.set()
        finally:
            timer.cancel()
            connection.close()
        # Without an error, too: the end of a connection may end an answer.
        if expired.is_set():
            raise QmpTimeoutError(
                f"{self.name}: {method} {path}: no answer in {seconds:.1f} s"
            )
        if len(data) > _MAX_ANSWER:
            raise TargetError(f"{self.name}: {method} {path}: the answer is too long")
        if answer.status >= _BAD_REQUEST:
            text = printable(data.decode("utf-8", "replace"))[:_MAX_TEXT]
            raise QmpCommandError(
                f"{self.name}: {method} {path}: refused ({answer.status}): {text}"
            )
        if not data.strip():
            return None
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise TargetError(
                f"{self.name}: {method} {path}: the answer is not JSON"
            ) from error
