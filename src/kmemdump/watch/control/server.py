# SPDX-License-Identifier: GPL-2.0-or-later
"""
The control socket of a watch: one request and its answer per connection.

Both are a line of JSON; docs/reference/watch.rst describes them. Only the user who
started the watch, and root, may ask.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from kmemdump.errors import TargetError
from kmemdump.targets.peer import peer_of

__all__ = ["ControlServer", "Request"]

MAX_LINE = 64 << 10
"""Maximum length of a request in bytes."""
_REQUEST_SECONDS = 5.0
"""Time that a client has for its request."""
ANSWER_SECONDS = 60.0
"""Time that the watch has for its answer."""
_MAX_REQUESTS = 64
"""Requests that wait at once; more are refused."""


class Request:
    """What a client asks for."""

    def __init__(self, body: Mapping[str, object]) -> None:
        self.body = body
        self._answer: queue.SimpleQueue[Mapping[str, object]] = queue.SimpleQueue()

    def reply(self, **answer: object) -> None:
        """Answer it."""
        self._answer.put(answer)

    def refuse(self, why: str) -> None:
        """Say why it cannot be done."""
        self._answer.put({"error": why})

    def wait(self) -> Mapping[str, object]:
        """Return the answer."""
        try:
            return self._answer.get(timeout=ANSWER_SECONDS)
        except queue.Empty:
            return {"error": f"the watch gave no answer in {ANSWER_SECONDS:.0f} s"}


class ControlServer:
    """
    Listens, in a thread of its own.

    :func:`multiprocessing.connection.wait` takes it, and returns it when
    :meth:`take` has something to return.

    :param path: Of the socket; a socket that nobody listens on is replaced.
    :raises TargetError: If it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._requests: queue.Queue[Request] = queue.Queue(_MAX_REQUESTS)
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            before = os.umask(0o177)  # The owner only, from the start.
            try:
                self._server = _Server(str(path), self._put)
            finally:
                os.umask(before)
        except OSError as error:
            os.close(self._event)
            raise TargetError(f"{path}: cannot listen: {error.strerror}") from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="control socket", daemon=True
        )
        self._thread.start()

    def fileno(self) -> int:
        return self._event

    def take(self) -> list[Request]:
        """Return the requests that wait for an answer."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event)
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._requests.get_nowait())
        return found

    def close(self) -> None:
        """Refuse what waits, and listen no more."""
        for request in self.take():
            request.refuse("the watch is ending")
        self._server.shutdown()
        self._server.server_close()
        self._path.unlink(missing_ok=True)
        self._thread.join()
        os.close(self._event)

    def _put(self, request: Request) -> None:
        try:
            self._requests.put_nowait(request)
        except queue.Full:
            request.refuse("too many requests at once")
        else:
            os.eventfd_write(self._event, 1)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False  # A client that is silent must not delay the end.

    def __init__(self, path: str, put: Callable[[Request], None]) -> None:
        self.put = put
        super().__init__(path, _Handler)

    def verify_request(self, request: object, client_address: object) -> bool:
        """Accept root and the user who started the watch."""
        assert isinstance(request, socket.socket)
        return peer_of(request).uid in (0, os.geteuid())

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is of no interest."""


class _Handler(socketserver.StreamRequestHandler):
    timeout = _REQUEST_SECONDS

    def handle(self) -> None:
        assert isinstance(self.server, _Server)
        try:
            body = json.loads(self.rfile.readline(MAX_LINE))
        except (ValueError, RecursionError):
            body = None
        request = Request(body if isinstance(body, dict) else {})
        if isinstance(body, dict):
            self.server.put(request)
        else:
            request.refuse(f"expected a line of JSON of at most {MAX_LINE} bytes")
        self.wfile.write(f"{json.dumps(request.wait())}\n".encode())
