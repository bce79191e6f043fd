# SPDX-License-Identifier: GPL-2.0-or-later
"""
The registry: the marked regions, and the one backend that holds them.

Semantics follow the kernel's kmemdump series: regions that are registered before there
is a backend wait for it, and a new backend takes over from the old one. When a backend
is detached, its regions stay registered and are handed to the next one.

A region that the backend refuses is registered nevertheless:
:meth:`Registry.register` returns it, :meth:`Registry.not_held` says why it is not held,
and it is offered again when there is room or another backend comes. An exception means
that the *registry* refuses the region, and that nothing has changed.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kmemdump.backends import FIRST_ID, Backend, SelfDescribing
from kmemdump.backends.elf_header_region import Description, describe
from kmemdump.errors import BackendError, KmemdumpError, RegistrationError
from kmemdump.memory.ranges import ADDRESS_SPACE, Range, Region, merge

__all__ = ["Refusal", "Registry", "UpdateResult"]

logger = logging.getLogger(__name__)

_LAST_ID = 0xFFFFFFFF  # Firmware tables have 32 bits for an id.
_DESCRIBING = 2
"""Regions that describe a dump."""
_NO_BACKEND = "there is no backend"
# Errors of the file or device behind a backend; any other error is a bug.
_FAILURES = (KmemdumpError, OSError)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A region that was refused, and why."""

    region: Region
    """Its id is 0 if it is not registered."""
    reason: str


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """The result of :meth:`Registry.update`."""

    added: tuple[Region, ...]
    removed: tuple[Region, ...]
    kept: tuple[Region, ...]
    """Regions that were there before and still are."""
    refused: tuple[Refusal, ...]
    """
    Regions that the registry refused, that the backend did not release, or that are
    registered (also in *added* or *kept*) but refused by the backend.
    """


class Registry:
    """
    The list of regions, and the backend that holds them.

    Iteration is over a copy, in the order of registration.

    :param ranges: The kernel's memory; regions must be in it. ``None`` accepts all.
    :param description: For self-describing backends. Without it they have none.
    """

    def __init__(
        self,
        ranges: Iterable[Range] | None = None,
        *,
        description: Description | None = None,
    ) -> None:
        self.backend: Backend | None = None
        self.described: tuple[Region, ...] = ()
        """The regions of the backend's description: two or none."""
        self.description_problem: str | None = None
        """Why the backend has no current description, if so."""
        self._ranges = None if ranges is None else merge(ranges)
        self._description = description
        self._stale = False  # Whether the backend's description is stale.
        self._held: dict[int, Region] = {}  # In the backend's order.
        self._reasons: dict[int, str] = {}  # Why the other regions are not held.
        self._regions: dict[int, Region] = {}
        self._taken: dict[Range, int] = {}
        self._next_id = FIRST_ID

    def __iter__(self) -> Iterator[Region]:
        return iter(tuple(self._regions.values()))

    def __len__(self) -> int:
        return len(self._regions)

    def not_held(self) -> list[Refusal]:
        """Return the regions that no backend holds, and why."""
        return [
            Refusal(region, self._reasons[region.id])
            for region in self._regions.values()
            if region.id in self._reasons
        ]

    def register(
        self, name: str, address: int, size: int, virtual: int | None = None
    ) -> Region:
        """
        Register a region, and hand it to the backend if there is one.

        Many regions are registered faster by :meth:`update`, which describes
        the backend once.

        :param address: Physical address in bytes.
        :param size: Size in bytes.
        :param virtual: Kernel virtual address, where one is known.
        :return: The region, with an id that is not used again soon.
        :raises RegistrationError: If its size or address is wrong or already in use.
        """
        with self._changing():
            return self._register(Region(0, name, address, size, virtual))

    def unregister(self, id: int) -> Region:
        """
        Take a region off the backend and the list.

        :return: The removed region.
        :raises RegistrationError: If there is no such region.
        :raises BackendError: If the backend does not release it. It stays registered,
            since the backend would still dump it.
        """
        with self._changing():
            region = self._regions.get(id)
            if region is None:
                raise RegistrationError(f"id {id} is not registered")
            self._unregister(region)
            self._retry()
            return region

    def update(self, regions: Iterable[Region]) -> UpdateResult:
        """
        Make the list equal to *regions* with the fewest changes.

        A region with the same name, address and size stays and keeps its id; the
        ids in *regions* are ignored. One with another virtual address is handed
        to the backend again. If there is room, new regions are added before old ones
        are removed, in case the kernel dies in between.
        """
        wanted = {_identity(region): region for region in regions}
        added: list[Region] = []
        removed: list[Region] = []
        refused: list[Refusal] = []

        def unregister(region: Region) -> None:
            try:
                self._unregister(region)
                removed.append(region)
            except BackendError as error:
                refused.append(Refusal(region, str(error)))

        with self._changing():
            before = {_identity(region): region for region in self._regions.values()}
            new = [region for key, region in wanted.items() if key not in before]
            gone = [region for key, region in before.items() if key not in wanted]
            room = self._room
            crowded = room is not None and room < len(new)
            needed = {region.range for region in new}
            for region in gone:
                if crowded or region.range in needed:
                    unregister(region)
            self._retry()
            for key, region in before.items():
                if key in wanted:
                    try:
                        self._set_virtual(region, wanted[key].virtual)
                    except RegistrationError as error:
                        refused.append(Refusal(region, str(error)))
            for region in new:
                region = region._replace(id=0)
                try:
                    added.append(self._register(region))
                except RegistrationError as error:
                    refused.append(Refusal(region, str(error)))
            for region in gone:
                if not crowded and region.range not in needed:
                    unregister(region)
            self._retry()
            kept = [
                region
                for region in self._regions.values()
                if _identity(region) in before
            ]
            if self.backend is not None:
                refused += self.not_held()
        return UpdateResult(tuple(added), tuple(removed), tuple(kept), tuple(refused))

    def attach(self, backend: Backend) -> list[Refusal]:
        """
        Hand all regions to *backend*, after taking them off the previous one.

        :return: The regions that it refuses; see :meth:`not_held`.
        :raises RegistrationError: If *backend* is already attached.
        """
        with self._changing():
            if backend is self.backend:
                raise RegistrationError(f"backend {backend.name} is already attached")
            self.detach()
            self.backend = backend
            if isinstance(backend, SelfDescribing):
                self._stale = True
                self._describe()  # Now, so that it gets the first two places.
            for region in self._regions.values():
                self._offer(region)
            return self.not_held()

    def detach(self) -> Backend | None:
        """
        Take all regions off the backend, even if it fails; they wait for the next one.

        :return: The detached backend, if any.
        """
        backend = self.backend
        for region in list(self._held.values()):
            try:
                self._take_off(region)
            except BackendError as error:
                # It may be gone with its machine; attaching another must still work.
                logger.warning("%s", error)
        self._take_description()
        self.backend = None
        self._reasons = dict.fromkeys(self._regions, _NO_BACKEND)
        self._held.clear()
        self._stale = False
        self.description_problem = None
        return backend

    def set_description(self, description: Description | None) -> None:
        """Replace the description for self-describing backends."""
        with self._changing():
            self._description = description
            self._stale = True
            if description is None:
                self._take_description()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Describe the regions anew at the end, whatever happens."""
        try:
            yield
        finally:
            self._describe()

    def _register(self, region: Region) -> Region:
        _check(self._find_problem(region), region)
        region = region._replace(id=self._new_id())
        self._offer(region)  # First, so that an exception changes nothing.
        self._regions[region.id] = region
        self._taken[region.range] = region.id
        return region

    def _find_problem(self, region: Region) -> str | None:
        """Return why the registry refuses a region, if so."""
        address, size = region.address, region.size
        if size <= 0:
            return f"size is {size}, expected at least 1 byte"
        if address < 0 or address + size > ADDRESS_SPACE:
            return f"{size:#x} bytes at {address:#x} overflow 64 bits"
        if self._ranges is not None:
            i = bisect_right(self._ranges, address, key=lambda item: item.start) - 1
            if i < 0 or region.range.end > self._ranges[i].end:
                return f"{region.range} is not in the kernel's memory"
        other = self._taken.get(region.range)
        if other is not None:
            name = self._regions[other].name
            return f"{region.range} is already registered as {name!r} (id {other})"
        return _virtual_problem(region)

    def _new_id(self) -> int:
        # Not the lowest free id: growing ids keep the order of registration, and an id
        # in an old dump is not mistaken for a new one.
        while True:
            id = self._next_id
            self._next_id = id + 1 if id < _LAST_ID else FIRST_ID
            if id not in self._regions:
                return id

    def _unregister(self, region: Region) -> None:
        self._take_off(region)
        del self._regions[region.id]
        del self._taken[region.range]

    def _set_virtual(self, region: Region, virtual: int | None) -> None:
        if virtual is None or virtual == region.virtual:
            return
        renamed = region._replace(virtual=virtual)
        _check(_virtual_problem(renamed), renamed)
        self._take_off(region)
        self._regions[region.id] = renamed
        self._offer(renamed)

    def _retry(self) -> None:
        for refusal in self.not_held():
            self._offer(refusal.region)

    @property
    def _room(self) -> int | None:
        """Number of regions that the backend still takes; ``None``: no limit."""
        backend = self.backend
        if backend is None or backend.capacity is None:
            return None
        # Two places are kept for the description even if there is none yet.
        own = _DESCRIBING if isinstance(backend, SelfDescribing) else 0
        return max(0, backend.capacity - own - len(self._held))

    def _offer(self, region: Region) -> None:
        """Hand *region* to the backend, or keep the reason why that fails."""
        backend = self.backend
        if backend is None:
            self._reasons[region.id] = _NO_BACKEND
            return
        if self._room == 0:
            reason = f"backend {backend.name} is full ({backend.capacity} regions)"
        else:
            try:
                backend.register(region)
            except _FAILURES as error:
                reason = f"backend {backend.name}: {error}"
            else:
                self._held[region.id] = region
                self._reasons.pop(region.id, None)
                self._stale = True
                return
        if self._reasons.get(region.id) != reason:
            logger.warning("region %r is not held: %s", region.name, reason)
        self._reasons[region.id] = reason

    def _take_off(self, region: Region) -> None:
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
        self._reasons.pop(region.id, None)

    def _describe(self) -> None:
        """Give a self-describing backend its description, if that is stale."""
        backend, description = self.backend, self._description
        stale, self._stale = self._stale, False
        if not stale or not isinstance(backend, SelfDescribing):
            return
        capacity, problem = backend.capacity, None
        slots = None if capacity is None else capacity - _DESCRIBING
        if description is None:
            problem = "there is no VMCOREINFO to describe the kernel with"
        elif slots is not None and slots < 0:
            problem = (
                f"backend {backend.name} is too small for a description: "
                f"{capacity} regions"
            )
        else:
            regions, alignment = list(self._held.values()), backend.alignment
            texts = describe(description, regions, slots=slots, alignment=alignment)
            try:
                self.described = backend.describe(*texts)
            except _FAILURES as error:
                problem = f"backend {backend.name} has no description: {error}"
                logger.warning("%s", problem)
        self.description_problem = problem

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


def _check(problem: str | None, region: Region) -> None:
    if problem is not None:
        raise RegistrationError(f"region {region.name!r}: {problem}")


def _virtual_problem(region: Region) -> str | None:
    virtual = region.virtual
    # A PT_LOAD at 0 would make NULL pointers readable.
    if virtual is not None and not 0 < virtual <= ADDRESS_SPACE - region.size:
        return f"virtual address is {virtual:#x}, expected a kernel address"
    return None


def _identity(region: Region) -> tuple[str, int, int]:
    return region.name, region.address, region.size
