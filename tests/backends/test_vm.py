# SPDX-License-Identifier: GPL-2.0-or-later
"""The backend that copies regions out of a VM's memory."""

from collections.abc import Sequence

import pytest

from kmemdump.backends import Backend, SelfDescribing
from kmemdump.backends.elf_header_region import Description
from kmemdump.backends.vm import Dump, VmBackend
from kmemdump.errors import BackendError, NotCapturedError
from kmemdump.marking.registry import Registry
from kmemdump.memory.ranges import Range, Region
from rigs.reader import VMCOREINFO, read_core


class BytesMemory:
    """16 KiB of physical memory, of which some pages may be gone."""

    def __init__(self) -> None:
        self.data = bytearray(bytes(range(256)) * 64)
        self.gone: set[int] = set()
        self.ranges: Sequence[Range] = [Range(0, len(self.data))]

    def read(self, address: int, size: int) -> bytes:
        for page in range(address // 4096, (address + size - 1) // 4096 + 1):
            if page in self.gone:
                raise NotCapturedError(f"no page at {page * 4096:#x}")
        return bytes(self.data[address : address + size])

    def close(self) -> None:
        pass


def test_it_is_what_it_should_be() -> None:
    backend: Backend = VmBackend(BytesMemory())
    assert isinstance(backend, SelfDescribing)
    assert backend.capacity is None


def test_dump_is_a_core_when_described() -> None:
    memory = BytesMemory()
    backend = VmBackend(memory, clock=lambda: 12.5)
    registry = Registry(memory.ranges, description=Description(62, VMCOREINFO))
    registry.register("before", 0x10, 3)
    registry.attach(backend)
    registry.register("after", 0x1000, 4096, virtual=0xFFFFFFFF81000000)
    assert [region.name for region in backend.regions] == [
        "elfhdr",
        "vmcoreinfo",
        "before",
        "after",
    ]
    assert registry.described == tuple(backend.regions[:2])
    dump = backend.dump()
    assert dump.time == 12.5
    notes, loads = read_core(dump.core())
    assert notes[-1] == ("VMCOREINFO", 0, VMCOREINFO)
    assert [(paddr, data) for paddr, _, data in loads] == [
        (0x10, b"\x10\x11\x12"),
        (0x1000, bytes(range(256)) * 16),
    ]
    for region, data in dump.contents:
        assert len(data) == region.size


def test_without_a_description_only_the_data() -> None:
    backend = VmBackend(BytesMemory())
    backend.register(Region(3, "a", 1, 2))
    backend.register(Region(9, "b", 0, 1))
    assert backend.dump().core() == b"\1\2\0"


def test_what_cannot_be_read_is_named_and_the_others_are_there() -> None:
    memory = BytesMemory()
    backend = VmBackend(memory)
    regions = [
        Region(3, "first", 0, 4),
        Region(4, "torn", 0x1FFE, 4),
        Region(5, "short", 0x3FFE, 4),  # Beyond the end; the memory returns less.
        Region(6, "last", 0x3000, 4),
    ]
    for region in regions:
        backend.register(region)
    memory.gone.add(2)
    dump = backend.dump()
    assert [region.name for region, _ in dump.contents] == ["first", "last"]
    assert dump.missing == (
        (regions[1], "no page at 0x2000"),
        (regions[2], "found 2 bytes, expected 4"),
    )
    with pytest.raises(NotCapturedError, match="lacks 2 regions: torn, short"):
        dump.core()


def test_a_dump_outlives_a_reset() -> None:
    memory = BytesMemory()
    backend = VmBackend(memory, clock=iter([1.0, 2.0]).__next__)
    backend.register(Region(3, "a", 0, 4))
    before = backend.dump()
    memory.data[:] = bytes(len(memory.data))
    assert before == Dump(1.0, ((Region(3, "a", 0, 4), b"\0\1\2\3"),))
    assert backend.dump().contents[0][1] == bytes(4)


def test_limits_and_misuse() -> None:
    backend = VmBackend(BytesMemory(), max_bytes=10)
    region = Region(3, "a", 0, 6)
    backend.register(region)
    with pytest.raises(BackendError, match="id 3 is already used"):
        backend.register(Region(3, "b", 8, 1))
    with pytest.raises(BackendError, match="b would make it 11 bytes, expected at mo"):
        backend.register(Region(4, "b", 8, 5))
    backend.unregister(region)
    backend.register(Region(4, "b", 0, 10))
    with pytest.raises(BackendError, match="id 3 is not registered"):
        backend.unregister(region)


def test_the_description_is_taken_off_too() -> None:
    backend = VmBackend(BytesMemory())
    registry = Registry(description=Description(62, VMCOREINFO))
    registry.attach(backend)
    assert len(backend.regions) == 2
    assert registry.detach() is backend
    assert backend.regions == []
    assert registry.described == ()
