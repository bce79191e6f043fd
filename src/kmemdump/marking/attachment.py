# SPDX-License-Identifier: GPL-2.0-or-later
"""A registry's backend: the regions that it holds or refuses, and its description."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from kmemdump.backends import Backend, SelfDescribing
from kmemdump.backends.description import Description, describe
from kmemdump.errors import BackendError, KmemdumpError
from kmemdump.memory.ranges import Region

__all__ = ["Attachment"]

logger = logging.getLogger(__name__)

_DESCRIBING = 2
"""Regions that describe a dump."""
_NO_BACKEND = "there is no backend"
# Of the file or device behind a backend; anything else is a bug.
_FAILURES = (KmemdumpError, OSError)


class Attachment:
    """One backend or none, and the regions that were offered to it."""

    def __init__(self, description: Description | None = None) -> None:
        self.backend: Backend | None = None
        self.described: tuple[Region, ...] = ()
        """The regions of its description: two or none."""
        self.problem: str | None = None
        """Why there is no current description, if so."""
        self.refusals: dict[int, str] = {}
        """Why, for the id of each region that was offered and is not held."""
        self._held: dict[int, Region] = {}  # In the backend's order.
        self._description = description
        self._stale = False  # The backend's description is.

    @property
    def room(self) -> int | None:
        """Number of regions that the backend still takes; ``None``: no limit."""
        backend = self.backend
        if backend is None or backend.capacity is None:
            return None
        # Two places are kept for the description even if there is none yet.
        own = _DESCRIBING if isinstance(backend, SelfDescribing) else 0
        return max(0, backend.capacity - own - len(self._held))

    def attach(self, backend: Backend, regions: Iterable[Region]) -> None:
        """Offer *regions* to *backend*, after :meth:`detach`."""
        self.backend = backend
        if isinstance(backend, SelfDescribing):
            self._stale = True
            self.describe()  # Now, so that it has the first two places.
        for region in regions:
            self.offer(region)

    def detach(self) -> Backend | None:
        """Take everything off the backend, whatever it raises, and drop it."""
        backend = self.backend
        if backend is None:
            return None
        waiting = [*self.refusals, *self._held]
        for region in list(self._held.values()):
            try:
                self.take_off(region)
            except BackendError as error:
                # It may be gone with its machine; the next one must be able to come.
                logger.warning("%s", error)
        self._take_description()
        self.backend = None
        self.refusals = dict.fromkeys(waiting, _NO_BACKEND)
        self._held.clear()
        self._stale = False
        self.problem = None
        return backend

    def offer(self, region: Region) -> None:
        """Hand *region* to the backend, or keep the reason why that fails."""
        backend = self.backend
        if backend is None:
            self.refusals[region.id] = _NO_BACKEND
            return
        if self.room == 0:
            reason = f"backend {backend.name} is full ({backend.capacity} regions)"
        else:
            try:
                backend.register(region)
            except _FAILURES as error:
                reason = f"backend {backend.name}: {error}"
            else:
                self._held[region.id] = region
                self.refusals.pop(region.id, None)
                self._stale = True
                return
        if self.refusals.get(region.id) != reason:
            logger.warning("region %r is not held: %s", region.name, reason)
        self.refusals[region.id] = reason

    def take_off(self, region: Region) -> None:
        """
        Take *region* off the backend, and forget about it.

        :raises BackendError: If the backend does not release it; nothing has changed.
        """
        if region.id in self._held:
            assert self.backend is not None
            try:
                self.backend.unregister(region)
            except _FAILURES as error:
                raise BackendError(
                    f"backend {self.backend.name} does not release region "
                    f"{region.name!r}: {error}"
                ) from error
            del self._held[region.id]
            self._stale = True
        self.refusals.pop(region.id, None)

    def set_description(self, description: Description | None) -> None:
        """Replace the description, or take it off."""
        self._description = description
        self._stale = True
        if description is None:
            self._take_description()

    def describe(self) -> None:
        """Give a self-describing backend its description, if it is stale."""
        backend, description = self.backend, self._description
        stale, self._stale = self._stale, False
        if not stale or not isinstance(backend, SelfDescribing):
            return
        if description is None:
            self.problem = "there is no VMCOREINFO to describe the kernel with"
            return
        slots = None
        if backend.capacity is not None:
            slots = backend.capacity - _DESCRIBING
            if slots < 0:
                self.problem = (
                    f"backend {backend.name} is too small for a description: "
                    f"{backend.capacity} regions"
                )
                return
        header, vmcoreinfo = describe(
            description,
            list(self._held.values()),
            slots=slots,
            alignment=backend.alignment,
        )
        try:
            self.described = backend.describe(header, vmcoreinfo)
            self.problem = None
        except _FAILURES as error:
            self.problem = f"backend {backend.name} has no description: {error}"
            logger.warning("%s", self.problem)

    def _take_description(self) -> None:
        described, self.described = self.described, ()
        for region in described:
            assert self.backend is not None
            try:
                self.backend.unregister(region)
            except _FAILURES as error:
                logger.warning(
                    "backend %s does not release its description: %s",
                    self.backend.name,
                    error,
                )
