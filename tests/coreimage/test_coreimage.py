# SPDX-License-Identifier: GPL-2.0-or-later
"""Core images: read back by us, by drgn, and byte by byte."""

import json
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import drgn
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kmemdump.coreimage import (
    AreaRecord,
    CoreContents,
    KernelRecord,
    Manifest,
    QuestionRecord,
    RegionRecord,
    read_core,
    verify,
    write_core,
)
from kmemdump.errors import FormatError, NotCapturedError, TargetError
from kmemdump.memory.physical import Memory
from kmemdump.memory.ranges import Alias, Range, Region

PAGE = 4096
BASE = 0xFFFF888000000000
KERNEL = 0xFFFFFFFF80000000
STACK = 0xFFFFC90000000000
DIRECT = Alias(BASE, 0, 1 << 40)
TIME = datetime(2025, 4, 22, 11, 31, 5, tzinfo=UTC)
MANIFEST = Manifest("kmemdump 0.1.0", TIME, KernelRecord("6.1.0", "3b43fad5", 62))


def page(number: int) -> bytes:
    """Return what :class:`FakeMemory` has in a page: different in each."""
    return struct.pack("<Q", number + 1) * (PAGE // 8)


class FakeMemory:
    """Memory some pages of which cannot be read, or only now and then."""

    def __init__(self, size: int = 64 << 20) -> None:
        self.ranges: Sequence[Range] = [Range(0, size)]
        self.broken: set[int] = set()
        self.failures: Iterator[bool] = iter(())

    def read(self, address: int, size: int) -> bytes:
        first, last = address // PAGE, (address + size - 1) // PAGE
        if next(self.failures, False) or self.broken & set(range(first, last + 1)):
            raise NotCapturedError(f"{address:#x}")
        data = b"".join(page(number) for number in range(first, last + 1))
        return data[address % PAGE :][:size]

    def close(self) -> None:
        pass


def contents(*ranges: tuple[int, int], **more: Any) -> CoreContents:
    regions = [
        Region(i, f"r{i}", address, size) for i, (address, size) in enumerate(ranges, 1)
    ]
    fields: dict[str, Any] = {
        "memory": FakeMemory(),
        "manifest": MANIFEST,
        "direct": DIRECT,
        **more,
    }
    return CoreContents(machine=62, regions=regions, **fields)


def read_loads(path: Path) -> list[tuple[int, ...]]:
    """Return offset, vaddr, paddr, filesz, memsz, align of each PT_LOAD."""
    data = path.read_bytes()
    assert data[:7] == b"\x7fELF\x02\x01\x01"
    (phoff,) = struct.unpack_from("<Q", data, 32)
    (phnum,) = struct.unpack_from("<H", data, 56)
    headers = [struct.unpack_from("<7Q", data, phoff + 56 * i) for i in range(phnum)]
    # gdb and crash want the notes first.
    assert [item[0] & 0xFFFFFFFF for item in headers] == [4] + [1] * (phnum - 1)
    assert headers[0][1] + headers[0][4] <= min(item[1] for item in headers[1:])
    return [item[1:] for item in headers[1:]]


def test_loads(tmp_path: Path) -> None:
    path = tmp_path / "core"
    image = contents(
        (0x3000, 2 * PAGE),
        (0, PAGE),
        (0x5000, 100),  # Touches the first one.
        (0x9010, 0x20),
        aliases=[
            Alias(STACK, 0x4000, PAGE),
            Alias(KERNEL, 0x2000, 0x8000),
            Alias(KERNEL + (1 << 30), 0x100000, PAGE),
        ],
    )
    assert write_core(path, image) == []
    loads = read_loads(path)
    assert [item[1:4] for item in loads] == [
        (BASE, 0, PAGE),
        (BASE + 0x3000, 0x3000, 2 * PAGE + 100),
        (BASE + 0x9010, 0x9010, 0x20),
        (STACK, 0x4000, PAGE),
        (KERNEL + 0x1000, 0x3000, 2 * PAGE + 100),
        (KERNEL + 0x7010, 0x9010, 0x20),
    ]
    data = path.read_bytes()
    for offset, virtual, physical, filesz, memsz, align in loads:
        assert virtual
        assert filesz == memsz
        assert align == 0
        if physical % PAGE == 0 and filesz % PAGE == 0:
            assert offset % PAGE == 0  # Whole pages can be mapped.
        assert data[offset : offset + filesz] == FakeMemory().read(physical, filesz)
    assert loads[0][0] == min(item[0] for item in loads)
    assert len({item[0] - item[2] for item in loads}) == 3  # Each piece once.
    with read_core(path) as core:
        assert core.memory.ranges == [
            Range(0, PAGE),
            Range(0x3000, 2 * PAGE + 100),
            Range(0x9010, 0x20),
        ]
        assert core.memory.read(0x4FFE, 4) == page(4)[-2:] + page(5)[:2]
        assert verify(core) == []


def test_drgn_reads(tmp_path: Path) -> None:
    path = tmp_path / "core"
    aliases = [Alias(KERNEL, 0x4000, PAGE), Alias(STACK, 0x4000, PAGE)]
    write_core(path, contents((0x3000, 3 * PAGE), aliases=aliases))
    prog = drgn.Program()
    prog.set_core_dump(path)
    for virtual in (KERNEL, STACK, BASE + 0x4000):
        assert prog.read(virtual, PAGE) == page(4)
    assert prog.read(0x3000, PAGE, physical=True) == page(3)
    with pytest.raises(drgn.FaultError):
        prog.read(0, 8)


@pytest.mark.parametrize("direct", [None, Alias(BASE, 0, 0x5000)])
def test_no_virtual_name(tmp_path: Path, direct: Alias | None) -> None:
    """What has no name is still there for who reads physical memory."""
    path = tmp_path / "core"
    aliases = [Alias(STACK, 0x6000, PAGE)]
    write_core(path, contents((0x4000, 3 * PAGE), direct=direct, aliases=aliases))
    first = (BASE + 0x4000, 0x4000, PAGE)
    expected = [
        *([first] if direct else []),
        ((1 << 63) + first[1] + (PAGE if direct else 0), 0x5000, PAGE),
        (STACK, 0x6000, PAGE),
    ]
    if direct is None:
        expected[0] = ((1 << 63) + 0x4000, 0x4000, 2 * PAGE)
    assert [item[1:4] for item in read_loads(path)] == expected
    with read_core(path) as core:
        assert core.memory.ranges == [Range(0x4000, 3 * PAGE)]
        assert verify(core) == []


def test_notes(tmp_path: Path) -> None:
    path = tmp_path / "core"
    registers = [bytes([cpu]) * 336 for cpu in range(3)]
    image = contents(
        (0, PAGE),
        prstatus=registers,
        vmcoreinfo=b"OSRELEASE=6.1.0\n",
        command_line="console=ttyS0 " + "x" * 100,
    )
    write_core(path, image)
    with read_core(path) as core:
        assert core.machine == 62
        assert [note.desc for note in core.notes[:3]] == registers
        assert core.notes[4].desc == b"OSRELEASE=6.1.0\n"
        names = [note.name for note in core.notes]
        assert names == ["CORE"] * 4 + ["VMCOREINFO", "KMEMDUMP"]
        # struct elf_prpsinfo: pr_sname at 1, pr_fname at 40, pr_psargs at 56.
        psinfo = core.notes[3].desc
        assert len(psinfo) == 136
        assert psinfo[1:2] == b"R"
        assert psinfo[40:56].rstrip(b"\0") == b"vmlinux"
        assert psinfo[56:] == b"console=ttyS0 " + b"x" * 65 + b"\0"
        assert core.manifest == MANIFEST._replace(
            regions=(RegionRecord(1, "r1", 0, PAGE, PAGE, zlib.crc32(page(0))),),
        )


def test_nothing_captured(tmp_path: Path) -> None:
    write_core(tmp_path / "core", contents())
    with read_core(tmp_path / "core") as core:
        assert core.memory.ranges == []
        assert verify(core) == []


def test_holes(tmp_path: Path) -> None:
    """What cannot be read is reported, and cannot be read from the core either."""
    path = tmp_path / "core"
    memory = FakeMemory(8 << 20)
    memory.broken = {3, 4, 9}
    image = contents(
        (0x1800, 8 * PAGE),
        (0x9000, PAGE),
        (0xB000, PAGE),
        (8 << 20, 1 << 30),
        memory=memory,
    )
    missing = [Range(0x3000, 2 * PAGE), Range(0x9000, PAGE), Range(8 << 20, 1 << 30)]
    assert write_core(path, image) == missing
    with read_core(path) as core:
        assert core.memory.ranges == [
            Range(0x1800, 0x1800),
            Range(0x5000, 4 * PAGE),
            Range(0xB000, PAGE),
        ]
        with pytest.raises(NotCapturedError):
            core.memory.read(0x3000, 1)
        assert core.manifest is not None
        captured = [region.captured for region in core.manifest.regions]
        assert captured == [0x1800 + 0x4000, 0, PAGE, 0]
        assert verify(core) == []


def test_hole_for_a_moment(tmp_path: Path) -> None:
    path = tmp_path / "core"
    memory = FakeMemory()
    looked_for_zeros = [False] * 4
    memory.failures = iter([*looked_for_zeros, False, True])
    assert write_core(path, contents((0, 4 << 20), memory=memory)) == []
    with read_core(path) as core:
        assert core.memory.ranges == [Range(0, 4 << 20)]
        assert verify(core) == []


def test_vanishing_memory(tmp_path: Path) -> None:
    memory = FakeMemory()
    looked_for_zeros = [False]
    memory.failures = iter([*looked_for_zeros, True, *[False] * 128] * 100)
    with pytest.raises(TargetError, match="vanished in each of 4 attempts"):
        write_core(tmp_path / "core", contents((0, PAGE << 7), memory=memory))
    assert os.listdir(tmp_path) == []


def test_pages_of_zeros_are_there_once(tmp_path: Path) -> None:
    class MostlyZeros(FakeMemory):
        def read(self, address: int, size: int) -> bytes:
            data = bytearray(super().read(address, size))
            for at in range(len(data)):
                if (address + at) // PAGE not in (0, 300, 301):
                    data[at] = 0
            return bytes(data)

    path = tmp_path / "core"
    image = contents((0, 400 * PAGE), (0x200800, PAGE), memory=MostlyZeros())
    assert write_core(path, image) == []
    assert path.stat().st_size < 40 * PAGE
    loads = read_loads(path)
    assert loads[0][0] == min(item[0] for item in loads)
    with read_core(path) as core:
        assert core.memory.ranges == [Range(0, 400 * PAGE), Range(0x200800, PAGE)]
        assert core.memory.read(300 * PAGE - 8, 16) == bytes(8) + page(300)[:8]
        assert core.memory.read(200 * PAGE, 2 * PAGE) == bytes(2 * PAGE)
        assert verify(core) == []


@pytest.mark.slow
def test_many_program_headers(tmp_path: Path) -> None:
    path = tmp_path / "core"
    count = 66_000
    aliases = [Alias(STACK + 2 * i * PAGE, 0x3000, PAGE) for i in range(count)]
    write_core(path, contents((0x3000, PAGE), aliases=aliases))
    with read_core(path) as core:
        assert len(core.headers) == count + 2
        assert core.memory.ranges == [Range(0x3000, PAGE)]
        assert verify(core) == []
    prog = drgn.Program()
    prog.set_core_dump(path)
    assert prog.read(STACK + 2 * (count - 1) * PAGE, PAGE) == page(3)


def test_verify_damage(tmp_path: Path) -> None:
    path = tmp_path / "core"
    write_core(path, contents((0x3000, PAGE), (0x5000, 2 << 20), (0x6000, 8)))
    data = bytearray(path.read_bytes())
    offset = read_loads(path)[1][0]
    data[offset + PAGE + 3] ^= 1
    path.write_bytes(data)
    with read_core(path) as core:
        assert [item.partition(" has")[0] for item in verify(core)] == [
            "region r2:",
            "region r3:",
        ]
        assert "checksum" in verify(core)[0]


def test_verify_truncated(tmp_path: Path) -> None:
    path = tmp_path / "core"
    write_core(path, contents((0x3000, PAGE), (0x5000, 2 * PAGE)))
    size = path.stat().st_size
    os.truncate(path, size - PAGE - 10)
    with read_core(path) as core:
        assert core.memory.ranges == [Range(0x3000, PAGE), Range(0x5000, PAGE - 10)]
        assert verify(core) == [
            f"truncated: the file ends at {size - PAGE - 10:#x}, "
            f"{PAGE + 10} bytes of memory from 0x5ff6-0x7000 on should follow",
            f"region r2: has {PAGE - 10} bytes in the file, expected {2 * PAGE}",
        ]
        with pytest.raises(NotCapturedError):
            core.memory.read(0x5000, PAGE)


class CountingMemory:
    """Memory that counts what is read of it."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.ranges, self.bytes = memory.ranges, 0

    def read(self, address: int, size: int) -> bytes:
        self.bytes += size
        return self._memory.read(address, size)

    def close(self) -> None:
        self._memory.close()


def test_verify_reads_no_more_than_regions_claim(tmp_path: Path) -> None:
    """A forged manifest has each of many regions cover all memory, and claim none."""
    path = tmp_path / "core"
    write_core(path, contents((0x3000, PAGE), (0x500000, 2 << 20)))
    with read_core(path) as core:
        assert core.manifest is not None
        regions = [RegionRecord(i, "r", 0, 1 << 62, i % 2, 0) for i in range(2000)]
        core.manifest = core.manifest._replace(regions=regions)
        core.memory = CountingMemory(core.memory)
        problems = verify(core)
        assert len(problems) == 2000
        assert (
            problems[0] == f"region r: has {PAGE} or more bytes in the file, expected 0"
        )
        assert core.memory.bytes == 0


def test_verify_conflict(tmp_path: Path) -> None:
    path = tmp_path / "core"
    write_core(path, contents((0x3000, PAGE), (0x9000, PAGE)))
    data = bytearray(path.read_bytes())
    struct.pack_into("<Q", data, 64 + 2 * 56 + 24, 0x3800)  # p_paddr
    path.write_bytes(data)
    with read_core(path) as core:
        problems = verify(core)
        assert problems[0].startswith("memory at 0x3800 is at offset ")
        assert problems[1] == f"region r2: has 0 bytes in the file, expected {PAGE}"
        assert core.memory.ranges == [Range(0x3000, 0x1800)]


def test_foreign_core(tmp_path: Path) -> None:
    """A core of somebody else's, with memory that has no physical address."""
    path = tmp_path / "core"
    header = struct.pack(
        "<16s2HI3QI6H", b"\x7fELF\2\1\1", 4, 183, 1, 0, 64, 0, 0, 64, 56, 3, 0, 0, 0
    )
    loads = struct.pack("<2I6Q", 1, 7, 0x1000, 0, 0x40000000, 16, 0x2000, 4096)
    loads += struct.pack("<2I6Q", 1, 7, 0x1000, 0, 2**64 - 1, 16, 16, 4096)
    loads += struct.pack("<2I6Q", 1, 7, 0x1000, 0, 0x40000008, 16, 16, 4096)
    path.write_bytes((header + loads).ljust(0x1000, b"\0") + b"0123456789abcdef")
    with read_core(path) as core:
        assert core.manifest is None
        assert core.notes == []
        assert core.memory.read(0x40000000, 24) == b"0123456789abcdef89abcdef"


@pytest.mark.parametrize("name", ["none", "folder", "fifo"])
def test_open_impossible(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(TargetError, match=f"{name}: (No such file|is a )"):
        read_core(tmp_path / name)


@given(
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6),
    st.integers(0, 3 * PAGE),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage(tmp_path: Path, changes: list[tuple[int, int]], cut: int) -> None:
    path = tmp_path / "core"
    whole = tmp_path / "whole"
    if not whole.exists():
        write_core(whole, contents((0x3000, PAGE), (0x9000, 100), vmcoreinfo=b"A=1"))
    data = bytearray(whole.read_bytes())
    for offset, value in changes:
        data[offset % len(data)] = value
    path.write_bytes(data[: max(len(data) - cut, 0)])
    try:
        with read_core(path) as core:
            verify(core)
    except FormatError:
        pass
    except TargetError:
        assert path.stat().st_size == 0


# Manifest

_texts = st.text(
    st.characters(exclude_categories=["C", "Z"], include_characters=" \n\t"),
    max_size=20,
)
_counts = st.integers(0, 2**64 - 1)
_questions = st.builds(
    QuestionRecord,
    text=_texts,
    complete=st.booleans(),
    reason=_texts,
    seconds=st.floats(0, 1e9),
)
_manifests = st.builds(
    Manifest,
    tool=_texts,
    time=st.datetimes(timezones=st.just(UTC)),
    kernel=st.builds(
        KernelRecord,
        osrelease=_texts,
        build_id=st.none() | st.binary(min_size=1, max_size=20).map(bytes.hex),
        machine=_counts,
    ),
    backend=_texts,
    marked_at=st.none() | st.datetimes(timezones=st.just(UTC)),
    cause=_texts,
    death=_texts,
    signature=_texts,
    death_id=_texts,
    vm=_texts,
    regions=st.lists(
        st.builds(
            RegionRecord,
            id=_counts,
            name=_texts,
            address=st.integers(0, 1 << 63),
            size=st.integers(0, 1 << 63),
            captured=_counts,
            crc32=st.integers(0, 2**32 - 1),
            virtual=st.none() | _counts,
        ),
        max_size=4,
    ).map(tuple),
    areas=st.lists(
        st.builds(
            AreaRecord,
            name=_texts,
            complete=st.booleans(),
            reason=_texts,
            bytes=_counts,
            questions=st.lists(_questions, max_size=2).map(tuple),
        ),
        max_size=3,
    ).map(tuple),
    questions=st.lists(_questions, max_size=2).map(tuple),
    redacted=_texts,
)


@given(_manifests)
def test_manifest_round_trip(manifest: Manifest) -> None:
    data = manifest.to_json()
    assert Manifest.from_json(data, "x") == manifest
    fields = json.loads(data)
    assert fields["version"] == 1
    for region, record in zip(fields["regions"], manifest.regions, strict=True):
        assert int(region["address"], 16) == record.address


def test_manifest_escapes() -> None:
    """What goes to a terminal later holds no escape sequences."""
    manifest = MANIFEST._replace(tool="a\x1b[31m\ud800\0", backend="x" * 100_000)
    parsed = Manifest.from_json(manifest.to_json(), "x")
    assert parsed.tool == r"a\x1b[31m\ud800\x00"
    assert len(parsed.backend) == 1 << 16
    forged = json.dumps({**json.loads(manifest.to_json()), "tool": "a\x1b[31m"})
    assert Manifest.from_json(forged.encode(), "x").tool == r"a\x1b[31m"


def test_manifest_time() -> None:
    fields = json.loads(MANIFEST.to_json())
    assert fields["time"] == "2025-04-22T11:31:05+00:00"
    fields["time"] = "2025-04-22T13:31:05+02:00"
    time = Manifest.from_json(json.dumps(fields).encode(), "x").time
    assert time == TIME
    assert time.utcoffset() == timedelta(0)


def test_manifest_unknown_fields() -> None:
    fields = json.loads(MANIFEST.to_json())
    fields["new"] = fields["kernel"]["new"] = {"deep": [1]}
    assert Manifest.from_json(json.dumps(fields).encode(), "x") == MANIFEST


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"version": 2}, "x: version 2, expected at most 1: use the kmemdump that"),
        ({"version": True}, "x.version: is True, expected an integer"),
        ({"version": None}, "x.version: is None, expected an integer"),
        ({"tool": 1}, "x.tool: is 1, expected a string"),
        ({"tool": "x" * 70000}, "characters"),
        ({"time": "2025-04-22T11:31:05"}, "x.time: is '2025-04-22T11:31:05', expected"),
        ({"time": 5}, "x.time: is 5, expected a time"),
        ({"time": "0001-01-01T00:00:00+23:00"}, "x.time: is "),
        ({"marked_at": "yesterday"}, "x.marked_at: is 'yesterday'"),
        ({"kernel": []}, "x.kernel: is 'list', expected an object"),
        ({"kernel": {"osrelease": "6", "machine": -1}}, "x.kernel.machine: is -1"),
        (
            {"kernel": {"osrelease": "6", "machine": 1, "build_id": "q"}},
            "x.kernel.build_id",
        ),
        ({"regions": {}}, "x.regions: is 'dict', expected a list"),
        ({"regions": [{"id": 1}]}, "x.regions[0].name: is None, expected a string"),
        ({"areas": [{"name": "a", "complete": 1}]}, "x.areas[0].complete: is 1"),
        (
            {"questions": [{"text": "", "complete": True, "seconds": 1e999}]},
            "x.questions[0].seconds: is inf",
        ),
        (
            {
                "regions": [
                    {
                        "id": 1,
                        "name": "a",
                        "address": "0xfffffffffffff000",
                        "size": 4097,
                        "captured": "0x0",
                        "crc32": "0x0",
                    }
                ]
            },
            "x.regions[0].size: is 4097, expected no wrap-around",
        ),
    ],
)
def test_manifest_refused(changes: dict[str, object], problem: str) -> None:
    fields = json.loads(MANIFEST.to_json()) | changes
    with pytest.raises(FormatError) as caught:
        Manifest.from_json(json.dumps(fields).encode(), "x")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"[" * 100_000, b"1" * 10_000, b"null", b'"\\ud800"']
)
def test_manifest_no_json(data: bytes) -> None:
    with pytest.raises(FormatError):
        Manifest.from_json(data, "x")


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.data())
def test_manifest_any_field(data: st.DataObject) -> None:
    """One field anywhere in a manifest becomes something else."""
    region = RegionRecord(1, "r1", 0, PAGE, PAGE, 1, BASE)
    question = QuestionRecord("ps", True)
    area = AreaRecord("sched", True, questions=[question])
    manifest = MANIFEST._replace(regions=[region], areas=[area], questions=[question])
    fields = json.loads(manifest.to_json())
    target = fields
    while True:
        keys = list(target) if isinstance(target, dict) else list(range(len(target)))
        key = data.draw(st.sampled_from(keys))
        inside = target[key]
        if (
            not inside
            or not isinstance(inside, dict | list)
            or data.draw(st.booleans())
        ):
            target[key] = data.draw(_values)
            break
        target = inside
    try:
        Manifest.from_json(json.dumps(fields).encode(), "x")
    except FormatError as error:
        where = error.where
    else:
        where = "x"
    assert where.startswith("x")


def test_verify_reads_no_more_parts_than_there_can_be(tmp_path: Path) -> None:
    """A forged manifest has each region cover many segments of a byte."""
    path = tmp_path / "core"
    write_core(path, contents(*((PAGE * i, 1) for i in range(400))))
    with read_core(path) as core:
        assert core.manifest is not None
        regions = [RegionRecord(i, "r", 0, 1 << 62, 400, 0) for i in range(400)]
        core.manifest = core.manifest._replace(regions=regions)
        core.memory = CountingMemory(core.memory)
        problems = verify(core)
        assert "regions have more than" in problems[-1]
        assert core.memory.bytes < 20 * 800
