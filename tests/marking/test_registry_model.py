# SPDX-License-Identifier: GPL-2.0-or-later
"""
The registry against a model, with backends that come, go, fill up and refuse.

The model says the same in fewer words: a list of regions, and a list of those
that the backend holds.
"""

import struct

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kmemdump.backends.elf_header_region import Description
from kmemdump.errors import BackendError, RegistrationError
from kmemdump.marking.registry import Registry
from kmemdump.memory.ranges import Range, Region

MEMORY = [Range(0, 64), Range(128, 64)]
NAMES = st.sampled_from("abcd")
WISHES = st.builds(
    Region,
    st.integers(0, 9),
    NAMES,
    st.integers(-1, 200),
    st.sampled_from([0, 1, 8]),
    st.none() | st.integers(1 << 63, (1 << 63) + 3),
)


class PlainBackend:
    def __init__(self, capacity: int | None, refused: set[str]) -> None:
        self.name = "plain"
        self.capacity = capacity
        self.refused = refused
        self.regions: dict[int, Region] = {}

    def register(self, region: Region) -> None:
        assert self.capacity is None or len(self.regions) < self.capacity
        assert region.id not in self.regions
        if region.name in self.refused:
            raise BackendError("refused")
        self.regions[region.id] = region

    def unregister(self, region: Region) -> None:
        assert self.regions.pop(region.id) == region

    def described(self) -> None:
        pass


class CoreBackend(PlainBackend):
    alignment = 4

    def describe(self, header: bytes, vmcoreinfo: bytes) -> tuple[Region, Region]:
        self.header = header
        first = Region(1, "elfhdr", 0, len(header))
        second = Region(2, "vmcoreinfo", 0, len(vmcoreinfo))
        for region in (second, first):
            self.regions.pop(region.id, None)
        self.regions = {1: first, 2: second, **self.regions}
        return first, second

    def described(self) -> None:
        (count,) = struct.unpack_from("<H", self.header, 56)
        for i, region in enumerate(list(self.regions.values())[2:], 1):
            address, size = struct.unpack_from("<QQ", self.header, 64 + i * 56 + 24)
            assert (address, size) == (region.address, region.size)
        assert count == len(self.regions) - 1


def is_valid(region: Region, others: list[Region]) -> bool:
    inside = any(
        item.start <= region.address and region.range.end <= item.end for item in MEMORY
    )
    return (
        region.size > 0
        and inside
        and all(region.range != other.range for other in others)
    )


def identity(region: Region) -> tuple[str, int, int]:
    return region.name, region.address, region.size


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.registry = Registry(MEMORY, description=Description(62, b"text"))
        self.backend: PlainBackend | None = None
        self.refused: set[str] = set()
        self.regions: list[Region] = []
        self.held: list[Region] = []

    def offer(self, region: Region) -> None:
        backend = self.backend
        if backend is None or region.name in self.refused:
            return
        reserved = 2 if isinstance(backend, CoreBackend) else 0
        if backend.capacity is None or len(self.held) + reserved < backend.capacity:
            self.held.append(region)

    def offer_rest(self) -> None:
        for region in self.regions:
            if region not in self.held:
                self.offer(region)

    @rule(wish=WISHES)
    def register(self, wish: Region) -> None:
        valid = is_valid(wish, self.regions)
        try:
            region = self.registry.register(
                wish.name, wish.address, wish.size, wish.virtual
            )
        except RegistrationError:
            assert not valid
            return
        assert valid
        assert region.id not in {1, 2, *(item.id for item in self.regions)}
        self.regions.append(region)
        self.offer(region)

    @rule(data=st.data())
    def unregister(self, data: st.DataObject) -> None:
        if self.regions:
            region = data.draw(st.sampled_from(self.regions))
            assert self.registry.unregister(region.id) == region
            self.regions.remove(region)
            if region in self.held:
                self.held.remove(region)
            self.offer_rest()

    @rule(data=st.data(), new=st.lists(WISHES, max_size=5))
    def update(self, data: st.DataObject, new: list[Region]) -> None:
        before = list(self.regions)
        keep = [item for item in before if data.draw(st.booleans())]
        result = self.registry.update([*keep, *new])
        wanted = {identity(item) for item in [*keep, *new]}

        # What is wanted stays under its id, in its place; the rest goes.
        kept = [item for item in before if identity(item) in wanted]
        assert [item.id for item in result.kept] == [item.id for item in kept]
        assert [identity(a) for a in result.kept] == [identity(a) for a in kept]
        assert {item.id for item in result.removed} == {
            item.id for item in before if item not in kept
        }
        # What is new is added, if it is valid, each place once.
        expected: list[Region] = []
        last = {identity(item): item for item in new}
        for key, item in last.items():
            if key not in map(identity, kept) and is_valid(item, [*kept, *expected]):
                expected.append(item)
        assert [identity(item) for item in result.added] == [
            identity(item) for item in expected
        ]
        self.regions = [*result.kept, *result.added]
        # The order of hand-over is the registry's affair; nothing is left waiting
        # that the backend would take.
        waiting = {item.region.id for item in self.registry.not_held()}
        self.held = [item for item in self.regions if item.id not in waiting]
        was = len(self.held)
        self.offer_rest()
        assert len(self.held) == was
        if self.backend is not None:
            assert waiting <= {item.region.id for item in result.refused}

    @rule(core=st.booleans(), capacity=st.none() | st.integers(2, 6))
    def attach(self, core: bool, capacity: int | None) -> None:
        old = self.backend
        kind = CoreBackend if core else PlainBackend
        self.backend = kind(capacity, self.refused)
        refusals = self.registry.attach(self.backend)
        assert old is None or old.regions == {}
        self.held = []
        self.offer_rest()
        assert len(refusals) == len(self.regions) - len(self.held)

    @rule()
    def detach(self) -> None:
        old, self.backend = self.backend, None
        assert self.registry.detach() is old
        assert old is None or old.regions == {}
        self.held = []

    @rule(name=NAMES)
    def change_mind(self, name: str) -> None:
        self.refused ^= {name}

    @invariant()
    def same(self) -> None:
        assert list(self.registry) == self.regions
        ids = {item.id for item in self.held}
        assert [item.region for item in self.registry.not_held()] == [
            item for item in self.regions if item.id not in ids
        ]
        assert all(item.reason for item in self.registry.not_held())
        if self.backend is not None:
            assert set(self.backend.regions) - {1, 2} == ids
            self.backend.described()


Machine.TestCase.settings = settings(stateful_step_count=30)
TestRegistry = Machine.TestCase
