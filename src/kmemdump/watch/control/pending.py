# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests that wait for the event by which a worker answers."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from kmemdump.watch.control.server import Request
from kmemdump.watch.events import Event

__all__ = ["PendingRequests"]


@dataclass(frozen=True, slots=True)
class _Pending:
    request: Request
    vm: str


class PendingRequests:
    """Requests, each with a number that its answer has in :attr:`Event.request`."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._pending: dict[int, _Pending] = {}

    def count(self, vm: str) -> int:
        """Return how many requests a VM's worker has not answered."""
        return sum(item.vm == vm for item in self._pending.values())

    def add(self, request: Request, vm: str) -> int:
        """
        Keep a request.

        :param vm: The VM whose worker answers.
        :return: Its number.
        """
        number = next(self._numbers)
        self._pending[number] = _Pending(request, vm)
        return number

    def answer(self, event: Event) -> None:
        """Answer the request that an event is the answer to, if it is to any."""
        found = self._pending.pop(event.request, None) if event.request else None
        if found is not None:
            found.request.reply(**event.record())

    def refuse(self, number: int, why: str) -> None:
        """Refuse one request, which was added under a number."""
        self._pending.pop(number).request.refuse(why)

    def refuse_all(self, vm: str, why: str) -> None:
        """Refuse the requests that a worker will not answer any more."""
        for number, item in [*self._pending.items()]:
            if item.vm == vm:
                del self._pending[number]
                item.request.refuse(why)
