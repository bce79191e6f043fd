# SPDX-License-Identifier: GPL-2.0-or-later
"""Examines sources on this machine, on several CPUs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from kmemdump.bounds.steps import Limits
from kmemdump.catalogue.child import Child
from kmemdump.catalogue.known import KnownContents
from kmemdump.catalogue.problem import Examined
from kmemdump.catalogue.sources import Source

__all__ = ["LocalRunner"]

_Result = Examined | BaseException | None


class LocalRunner:
    """
    Examines sources in processes of their own.

    :param jobs: How many run at a time.
    :param host: Name of the machine that adds the sources.
    :param identity: Files of private keys, for sources that are sealed.
    """

    def __init__(
        self, jobs: int, limits: Limits, host: str, identity: Sequence[Path] = ()
    ) -> None:
        self._children = [Child(limits, host, identity) for _ in range(jobs)]

    def run(
        self, sources: Iterable[Source], known: KnownContents
    ) -> Iterator[Examined | None]:
        """Yield what each source says, as soon as it is there; see `Runner`."""
        todo = _Shared(sources)
        children = self._children
        results: queue.Queue[tuple[bool, _Result]] = queue.Queue(2 * len(children))

        def work(child: Child) -> None:
            try:
                with child:
                    for source in todo:
                        results.put((False, child.examine(source, known.claim)))
            except BaseException as error:
                results.put((False, error))
            results.put((True, None))

        threads = [
            threading.Thread(target=work, args=(child,), daemon=True)
            for child in children
        ]
        for thread in threads:
            thread.start()
        left = len(threads)
        try:
            while left:
                ended, result = results.get()
                if isinstance(result, BaseException):
                    raise result
                if ended:
                    left -= 1
                else:
                    yield result
        finally:
            todo.stop()
            while any(thread.is_alive() for thread in threads):
                for child in children:
                    child.kill()
                while not results.empty():
                    results.get()
                threads[0].join(0.01)
                threads = [thread for thread in threads if thread.is_alive()] or threads


class _Shared:
    """An iterator for several threads."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._sources = iter(sources)
        self._lock = threading.Lock()
        self._stopped = False

    def __iter__(self) -> Iterator[Source]:
        return self

    def __next__(self) -> Source:
        with self._lock:
            if self._stopped:
                raise StopIteration
            return next(self._sources)

    def stop(self) -> None:
        """Give out nothing more."""
        self._stopped = True
