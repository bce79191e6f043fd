# SPDX-License-Identifier: GPL-2.0-or-later
"""
Examines sources on the workers of a Dask scheduler.

Workers only compute: rows and pages come back here and are written here, so a source
that is examined twice, because a worker or the scheduler died, has one row. Workers
need kmemdump, and read sources by the same path or URL. They know what the catalogue
had when this began, and do not examine it.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import distributed

from kmemdump.bounds.steps import Limits
from kmemdump.catalogue.child import Child
from kmemdump.catalogue.known import ContentSet, KnownContents
from kmemdump.catalogue.messages import from_json, to_json
from kmemdump.catalogue.problem import Examined, problem_row
from kmemdump.catalogue.row import UNREAD, Row
from kmemdump.catalogue.sources import Source
from kmemdump.errors import TargetError, UsageError

__all__ = ["ClusterRunner"]

_ADDRESS = re.compile(r"(?:\w+://)?\S+:\d{1,5}")
_EACH = 4
"""Sources that a worker's thread has, or that wait for it."""
_LEAST = 32
_CONNECTING = 10.0
"""Seconds until the next attempt to reach a scheduler."""
_POLL = 1.0
_RETRIES = 2
"""After an error that is not the source's."""

_mine = threading.local()
_known: dict[str, ContentSet] = {}
"""On a worker: by the run, what its catalogue has."""


class _LostError(Exception):
    """A worker or the scheduler died, and what was being done there is lost."""


class _Knowledge(distributed.WorkerPlugin):
    """Gives each worker, also one that starts later, what a catalogue has."""

    def __init__(self, run: str, contents: ContentSet) -> None:
        self.name = f"kmemdump-{run}"
        self._run = run
        self._contents = contents

    def setup(self, worker: object) -> None:
        _known[self._run] = self._contents

    def teardown(self, worker: object) -> None:
        _known.pop(self._run, None)


class ClusterRunner:
    """
    Examines sources by means of a scheduler.

    :param address: As ``tcp://HOST:PORT``.
    :param host: Name of the machine that adds the sources.
    :param patience: Seconds to wait for a scheduler that is gone.
    :raises UsageError: If that is no address.
    :raises TargetError: If the scheduler cannot be reached.
    """

    def __init__(
        self, address: str, limits: Limits, host: str, *, patience: float = 600.0
    ) -> None:
        if not _ADDRESS.fullmatch(address):
            raise UsageError(f"--scheduler {address!r}: expected tcp://HOST:PORT")
        self._address = address
        self._limits = limits
        self._host = host
        self._patience = patience
        self._client: Any = None
        self._run = f"run-{uuid.uuid4().hex}"
        self._contents = ContentSet()
        self._some = threading.Event()
        """Set when something ended."""
        self._connect(_CONNECTING)

    def run(
        self, sources: Iterable[Source], known: KnownContents
    ) -> Iterator[Examined | None]:
        """Yield what each source says: see :class:`~.adding.Runner`."""
        self._contents = known.before
        self._tell()
        todo = iter(sources)
        waiting: dict[Any, Source] = {}
        try:
            while True:
                if self._client.status != "running":
                    again = list(waiting.values())
                    self._connect(self._patience)
                    waiting = {self._submit(source): source for source in again}
                room = self._room() - len(waiting)
                for source in islice(todo, max(room, 0)):
                    waiting[self._submit(source)] = source
                if not waiting:
                    return
                for future in self._ended(list(waiting)):
                    source = waiting.pop(future)
                    try:
                        result = self._result(future, source)
                    except _LostError:
                        waiting[self._submit(source)] = source
                        continue
                    if result is not None and not _is_unread(result[0]):
                        # Workers do not know of each other.
                        yield result if known.claim(result[0].content) else None
                    else:
                        yield result
        finally:
            self._close()

    def _connect(self, patience: float) -> None:
        deadline = time.monotonic() + patience
        while True:
            self._close()
            try:
                self._client = distributed.Client(  # type: ignore[no-untyped-call]
                    self._address, timeout=_CONNECTING, set_as_default=False
                )
            except (OSError, ValueError) as error:
                if isinstance(error, ValueError) or time.monotonic() > deadline:
                    raise TargetError(
                        f"{self._address}: no scheduler answers: {error}"
                    ) from error
                time.sleep(_POLL)
            else:
                self._tell()
                return

    def _tell(self) -> None:
        """Tell the workers what the catalogue has; without that, they work in vain."""
        if self._contents.prefixes:
            with contextlib.suppress(OSError):  # Seen in the next turn.
                self._client.register_plugin(_Knowledge(self._run, self._contents))

    def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):  # It may be closed by now.
                if self._contents.prefixes and client.status == "running":
                    client.unregister_worker_plugin(f"kmemdump-{self._run}")
                client.close(timeout=_CONNECTING)

    def _room(self) -> int:
        """Return how many sources may be at the scheduler."""
        with contextlib.suppress(Exception):  # No scheduler: seen in the next turn.
            threads = sum(self._client.nthreads().values())
            return int(max(_EACH * threads, _LEAST))
        return _LEAST

    def _submit(self, source: Source) -> Any:
        key = hashlib.sha256(source.name.encode("utf-8", "surrogateescape"))
        future = self._client.submit(
            _examine,
            to_json(source),
            self._limits.seconds,
            self._limits.memory,
            self._host,
            self._run,
            key=f"kmemdump-{key.hexdigest()}-{time.monotonic_ns()}",
            pure=False,
            retries=_RETRIES,
        )
        future.add_done_callback(lambda _: self._some.set())
        return future

    def _ended(self, futures: list[Any]) -> list[Any]:
        """Wait a while, and return those that are not being worked on any more."""
        self._some.wait(_POLL)
        self._some.clear()
        return [future for future in futures if future.status != "pending"]

    def _result(self, future: Any, source: Source) -> Examined | None:
        """
        Return what came out; None if the content is known.

        :raises _LostError: If the work was lost.
        """
        if future.status == "error":
            error = future.exception()
            return problem_row(source, self._host, f"on the cluster: {error}"), None
        if future.status != "finished":
            raise _LostError
        try:
            examined = future.result(timeout=_CONNECTING)
        except (distributed.CancelledError, TimeoutError, OSError) as error:
            raise _LostError from error
        if examined is None:
            return None
        fields, page = examined
        return Row.from_json(fields, source.name), page


def _is_unread(row: Row) -> bool:
    return row.content.startswith(UNREAD)


def _examine(
    source: dict[str, Any], seconds: float, memory: int, host: str, run: str
) -> tuple[dict[str, Any], bytes | None] | None:
    """Examine a source, if its content is not known; runs on a worker."""
    child = getattr(_mine, "child", None)
    if child is None:
        child = _mine.child = Child(Limits(memory, seconds=seconds), host)
    known = _known.get(run, ContentSet())
    examined = child.examine(from_json(source), lambda content: content not in known)
    if examined is None:
        return None
    row, page = examined
    return row.to_json(), page
