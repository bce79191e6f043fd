# SPDX-License-Identifier: GPL-2.0-or-later
"""The registry against the semantics of the kernel's kmemdump series."""

import logging
import struct

import pytest

from kmemdump.backends.elf_header_region import Description
from kmemdump.errors import BackendError, RegistrationError, TargetError
from kmemdump.marking.registry import Refusal, Registry
from kmemdump.memory.ranges import Range, Region


class TableBackend:
    """A firmware table that minds what is done to it."""

    def __init__(self, capacity: int | None = None, name: str = "table") -> None:
        self.name = name
        self.capacity = capacity
        self.regions: list[Region] = []
        self.calls: list[tuple[str, int]] = []
        self.disliked: set[str] = set()
        self.sticky: set[str] = set()

    def register(self, region: Region) -> None:
        self.calls.append(("register", region.id))
        if region.name in self.disliked:
            raise BackendError("no")
        assert region.id not in {item.id for item in self.regions}
        assert self.capacity is None or len(self.regions) < self.capacity
        self.regions.append(region)

    def unregister(self, region: Region) -> None:
        self.calls.append(("unregister", region.id))
        if region.name in self.sticky:
            raise TargetError("device is gone")
        self.regions.remove(region)


class DescribedBackend(TableBackend):
    """The same, with its description in the first two places."""

    alignment = 4

    def __init__(self, capacity: int | None = None, name: str = "described") -> None:
        super().__init__(capacity, name)
        self.header = self.vmcoreinfo = b""
        self.fails = False

    def describe(self, header: bytes, vmcoreinfo: bytes) -> tuple[Region, Region]:
        self.calls.append(("describe", len(self.regions)))
        if self.fails:
            raise BackendError("no place")
        self.header, self.vmcoreinfo = header, vmcoreinfo
        first = Region(1, "elfhdr", 0xF0000, len(header))
        second = Region(2, "vmcoreinfo", 0xF8000, len(vmcoreinfo))
        self.regions = [first, second, *self.regions[2 if self.described else 0 :]]
        return first, second

    @property
    def described(self) -> bool:
        return bool(self.regions) and self.regions[0].id == 1

    def places(self) -> list[tuple[int, int]]:
        """Address and size of each PT_LOAD in the header."""
        (count,) = struct.unpack_from("<H", self.header, 56)
        headers = [
            struct.unpack_from("<IIQQQQQQ", self.header, 64 + i * 56)
            for i in range(count)
        ]
        assert headers[0][0] == 4
        return [(header[4], header[5]) for header in headers[1:]]


def names(items: object) -> list[str]:
    return [item.name for item in items]  # type: ignore[attr-defined]


def reasons(refusals: list[Refusal]) -> dict[str, str]:
    return {refusal.region.name: refusal.reason for refusal in refusals}


def held(registry: Registry) -> set[str]:
    return {item.name for item in registry} - set(reasons(registry.not_held()))


def wish(name: str, address: int, size: int = 16, **kw: int) -> Region:
    return Region(0, name, address, size, **kw)


def test_register_gives_unique_ids_above_the_reserved() -> None:
    registry = Registry()
    a = registry.register("a", 0, 8)
    b = registry.register("b", 8, 8)
    c = registry.register("c", 16, 8, virtual=0xFFFF888000000010)
    assert a == Region(3, "a", 0, 8)
    assert b == Region(4, "b", 8, 8)
    assert c == Region(5, "c", 16, 8, 0xFFFF888000000010)
    assert list(registry) == [a, b, c]
    assert len(registry) == 3


def test_an_id_is_not_given_again_soon() -> None:
    registry = Registry()
    a = registry.register("a", 0, 8)
    registry.unregister(a.id)
    assert registry.register("b", 0, 8).id == 4


def test_ids_start_again_after_the_last() -> None:
    registry = Registry()
    registry.register("a", 0, 8)
    registry._next_id = 0xFFFFFFFF
    assert registry.register("b", 8, 8).id == 0xFFFFFFFF
    assert registry.register("c", 16, 8).id == 4


@pytest.mark.parametrize(
    ("address", "size", "options", "problem"),
    [
        (0x1000, 0, {}, "size is 0, expected at least 1 byte"),
        (0x1000, -1, {}, "size is -1, expected at least 1 byte"),
        (-1, 8, {}, "overflow 64 bits"),
        (2**64 - 8, 9, {}, "0x9 bytes at 0xfffffffffffffff8 overflow 64 bits"),
        (0xFFF, 2, {}, "0xfff-0x1001 is not in the kernel's memory"),
        (0x2FFF, 2, {}, "0x2fff-0x3001 is not in the kernel's memory"),
        (0x3800, 8, {}, "0x3800-0x3808 is not in the kernel's memory"),
        (0x1000, 0x4000, {}, "is not in the kernel's memory"),
        (0x2000, 16, {}, "0x2000-0x2010 is already registered as 'old' (id 3)"),
        (0x1000, 8, {"virtual": 0}, "virtual address is 0x0, expected a kernel"),
        (0x1000, 8, {"virtual": 2**64 - 4}, "expected a kernel address"),
    ],
)
def test_what_is_wrong_or_taken_is_refused_and_changes_nothing(
    address: int, size: int, options: dict[str, int], problem: str
) -> None:
    backend = TableBackend()
    # The first two touch, so they are one.
    registry = Registry(
        [Range(0x1000, 0x800), Range(0x1800, 0x1800), Range(1 << 20, 9)]
    )
    registry.attach(backend)
    old = registry.register("old", 0x2000, 16)
    with pytest.raises(RegistrationError) as caught:
        registry.register("new", address, size, **options)
    assert problem in str(caught.value)
    assert "region 'new'" in str(caught.value)
    assert list(registry) == [old]
    assert backend.regions == [old]
    assert registry.not_held() == []


def test_the_ends_of_memory_are_memory() -> None:
    registry = Registry([Range(0x1000, 0x1000), Range(2**64 - 16, 16)])
    registry.register("all", 0x1000, 0x1000)
    registry.register("end", 2**64 - 16, 16)
    registry.register("overlap", 0x1000, 8)  # Only the very same place is taken.


def test_an_unknown_id() -> None:
    registry = Registry()
    with pytest.raises(RegistrationError, match="id 5 is not registered"):
        registry.unregister(5)


def test_regions_wait_for_a_backend_and_are_taken_over() -> None:
    registry = Registry()
    a = registry.register("a", 0, 8)
    b = registry.register("b", 8, 8)
    assert reasons(registry.not_held()) == dict.fromkeys("ab", "there is no backend")
    first, second = TableBackend(), TableBackend()
    assert registry.attach(first) == []
    assert first.regions == [a, b]
    c = registry.register("c", 16, 8)
    assert held(registry) == {"a", "b", "c"}

    second.calls = first.calls  # To see who was called when.
    first.calls.clear()
    registry.attach(second)
    assert registry.backend is second
    assert first.calls == [
        ("unregister", a.id),
        ("unregister", b.id),
        ("unregister", c.id),
        ("register", a.id),
        ("register", b.id),
        ("register", c.id),
    ]
    assert first.regions == []
    assert second.regions == [a, b, c]

    assert registry.detach() is second
    assert second.regions == []
    assert list(registry) == [a, b, c]
    assert held(registry) == set()
    assert registry.detach() is None
    registry.attach(first)
    assert first.regions == [a, b, c]


def test_the_same_backend_twice() -> None:
    registry, backend = Registry(), TableBackend()
    registry.attach(backend)
    with pytest.raises(RegistrationError, match="backend table is already attached"):
        registry.attach(backend)


def test_a_full_backend_says_so_and_gets_the_region_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry, backend = Registry(), TableBackend(2)
    registry.attach(backend)
    a, b, c, d = (registry.register(name, ord(name), 1) for name in "abcd")
    assert names(registry) == ["a", "b", "c", "d"]
    assert reasons(registry.not_held()) == dict.fromkeys(
        "cd", "backend table is full (2 regions)"
    )
    assert "region 'c' is not held: backend table is full" in caplog.text
    registry.unregister(a.id)
    assert held(registry) == {"b", "c"}
    assert backend.regions == [b, c]
    big = TableBackend(3, "big")
    assert registry.attach(big) == []
    assert big.regions == [b, c, d]


def test_what_the_backend_refuses_is_kept_and_tried_again() -> None:
    registry, backend = Registry(), TableBackend()
    backend.disliked = {"b"}
    registry.attach(backend)
    _, b, c = (registry.register(name, ord(name), 1) for name in "abc")
    assert registry.not_held() == [Refusal(b, "backend table: no")]
    backend.disliked.clear()
    registry.unregister(c.id)
    assert held(registry) == {"a", "b"}
    backend.disliked = {"b"}
    assert registry.attach(other := TableBackend()) == []
    assert other.regions[-1] == b
    assert reasons(registry.attach(backend)) == {"b": "backend table: no"}


def test_a_refused_region_can_be_unregistered() -> None:
    registry, backend = Registry(), TableBackend(0)
    registry.attach(backend)
    a = registry.register("a", 0, 1)
    assert registry.unregister(a.id) == a
    assert backend.calls == []
    assert registry.not_held() == []


def test_a_backend_that_holds_on() -> None:
    registry, backend = Registry(), TableBackend()
    registry.attach(backend)
    a = registry.register("a", 0, 1)
    backend.sticky = {"a"}
    problem = "backend table does not release region 'a': device is gone"
    with pytest.raises(BackendError, match=problem):
        registry.unregister(a.id)
    assert list(registry) == [a]
    assert held(registry) == {"a"}
    result = registry.update([])
    assert result.removed == ()
    assert result.kept == (a,)
    assert result.refused == (Refusal(a, problem),)
    # It must not keep the next one from coming.
    registry.attach(other := TableBackend())
    assert other.regions == [a]


def test_a_bug_of_the_backend_surfaces_and_leaves_no_region_behind() -> None:
    class Buggy(TableBackend):
        def register(self, region: Region) -> None:
            raise ZeroDivisionError

    registry = Registry()
    registry.attach(Buggy())
    with pytest.raises(ZeroDivisionError):
        registry.register("a", 0, 1)
    assert len(registry) == 0
    assert registry.not_held() == []
    registry.detach()
    registry.register("a", 0, 1)


def test_update_changes_the_least() -> None:
    registry, backend = Registry(), TableBackend()
    registry.attach(backend)
    a, b, c = (registry.register(name, ord(name) << 8, 16) for name in "abc")
    backend.calls.clear()
    wanted = [wish("c", c.address), wish("d", 0x100), wish("a", a.address)]
    result = registry.update(wanted)
    d = Region(6, "d", 0x100, 16)
    assert (result.added, result.removed) == ((d,), (b,))
    assert (result.kept, result.refused) == ((a, c), ())
    assert list(registry) == [a, c, d]
    # There was room, so nothing was given up before the new one was safe.
    assert backend.calls == [("register", 6), ("unregister", b.id)]
    backend.calls.clear()
    assert registry.update(registry).kept == (a, c, d)
    assert backend.calls == []


def test_update_gives_up_first_what_it_must() -> None:
    registry, backend = Registry(), TableBackend(2)
    registry.attach(backend)
    a, b, c = (registry.register(name, ord(name) << 8, 16) for name in "abc")
    backend.calls.clear()
    result = registry.update([b, c, wish("d", 0)])
    # What waited longest comes first.
    assert backend.calls == [("unregister", a.id), ("register", c.id)]
    assert result.kept == (b, c)
    assert reasons(list(result.refused)) == {"d": "backend table is full (2 regions)"}
    assert names(result.added) == ["d"]


def test_update_with_another_name_for_the_same_place() -> None:
    registry, backend = Registry(), TableBackend()
    registry.attach(backend)
    a = registry.register("a", 0, 16)
    result = registry.update([wish("b", 0)])
    assert result.removed == (a,)
    assert backend.regions == list(registry) == list(result.added)


def test_update_with_another_virtual_address_keeps_the_id() -> None:
    registry, backend = Registry(), TableBackend()
    registry.attach(backend)
    a = registry.register("a", 0, 16)
    result = registry.update([wish("a", 0, virtual=0xFFFFFFFF81000000)])
    assert result.kept == (a._replace(virtual=0xFFFFFFFF81000000),)
    assert backend.regions == list(registry) == list(result.kept)
    assert registry.update([wish("a", 0)]).kept == result.kept  # None: as before.
    bad = registry.update([wish("a", 0, virtual=0)])
    assert "expected a kernel address" in bad.refused[0].reason
    assert bad.kept == result.kept


def test_update_names_bad_regions_and_goes_on() -> None:
    registry = Registry([Range(0, 0x1000)])
    result = registry.update(
        [
            wish("empty", 0, 0),
            wish("a", 0),
            wish("twin", 0),
            wish("far", 1 << 40),
            wish("a", 0),
            wish("b", 16),
        ]
    )
    assert names(result.added) == names(registry) == ["a", "b"]
    assert {item.region.name: item.region.id for item in result.refused} == {
        "empty": 0,
        "twin": 0,
        "far": 0,
    }


def test_a_self_describing_backend() -> None:
    registry = Registry(description=Description(62, b"OSRELEASE=6.1\n"))
    a = registry.register("a", 0x1000, 6)
    backend = DescribedBackend(201)
    assert registry.attach(backend) == []
    # Its description has the first two places, and knows the regions in the end.
    assert backend.calls == [("describe", 0), ("register", a.id), ("describe", 3)]
    assert names(backend.regions) == ["elfhdr", "vmcoreinfo", "a"]
    assert registry.described == tuple(backend.regions[:2])
    assert backend.vmcoreinfo == b"OSRELEASE=6.1\n\0\0"
    size = len(backend.header)
    backend.calls.clear()
    registry.update([wish(f"r{i}", i * 64) for i in range(199)])
    assert [call for call in backend.calls if call[0] == "describe"] == [
        ("describe", 201)
    ]
    assert registry.not_held() == []
    assert len(backend.header) == size
    assert backend.places() == [(r.address, r.size) for r in backend.regions[2:]]
    registry.register("one more", 0x100000, 1)
    assert reasons(registry.not_held()) == {
        "one more": "backend described is full (201 regions)"
    }
    assert len(backend.places()) == 199
    registry.detach()
    assert backend.regions == []
    assert registry.described == ()


def test_the_header_lists_what_is_held_in_the_order_of_the_backend() -> None:
    registry = Registry(description=Description(62, b"x"))
    backend = DescribedBackend()
    backend.disliked = {"a"}
    registry.attach(backend)
    registry.register("a", 0x1000, 8)
    registry.register("b", 0x2000, 8)
    assert backend.places() == [(0x2000, 8)]
    backend.disliked.clear()
    registry.update(registry)
    assert backend.places() == [(0x2000, 8), (0x1000, 8)]
    assert names(registry) == ["a", "b"]


def test_a_description_that_comes_late_changes_and_goes() -> None:
    registry, backend = Registry(), DescribedBackend(2)
    registry.attach(backend)
    registry.register("a", 0x1000, 8)
    assert registry.not_held()  # The places of the description are kept free.
    assert "there is no VMCOREINFO" in str(registry.description_problem)
    registry.set_description(Description(62, b"one"))
    assert backend.vmcoreinfo == b"one\0"
    assert registry.description_problem is None
    registry.set_description(Description(62, b"two"))
    assert backend.vmcoreinfo == b"two\0"
    backend.fails = True
    registry.set_description(Description(62, b"six"))
    assert registry.description_problem == (
        "backend described has no description: no place"
    )
    registry.set_description(None)
    assert backend.regions == []
    registry.attach(DescribedBackend(1))
    registry.set_description(Description(62, b"x"))
    assert "too small for a description: 1 regions" in str(registry.description_problem)


def test_a_description_that_cannot_be_taken_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry = Registry(description=Description(62, b"x"))
    backend = DescribedBackend()
    registry.attach(backend)
    backend.sticky = {"elfhdr"}
    with caplog.at_level(logging.WARNING):
        registry.attach(other := DescribedBackend())
    assert "does not release its description: device is gone" in caplog.text
    assert registry.described == tuple(other.regions)
