# SPDX-License-Identifier: GPL-2.0-or-later
"""What kernels of one build share: as if each had read it in its own memory."""

import os
import struct
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from kmemdump.coreimage import CoreImage, read_core
from kmemdump.errors import FormatError
from kmemdump.formats.btf import parse_btf
from kmemdump.formats.columns import read_columns, write_columns
from kmemdump.formats.debug_info import (
    DebugInfoNote,
    pack_debug_info,
    parse_debug_info,
    split_place,
)
from kmemdump.formats.packing import compress, decompress
from kmemdump.formats.symbols import SymbolRow, make_symbols
from kmemdump.kernel import build_cache
from kmemdump.kernel.attach import read_own_debug_info
from kmemdump.kernel.build_cache import Build, BuildCache, digest_of
from kmemdump.kernel.debug_info import DebugInfo, debug_info_of_core
from kmemdump.memory.recorder import Recorder
from kmemdump.opening import open_target
from rigs.btf_writer import BtfWriter
from rigs.dead_machine import DeadMachine
from rigs.scenarios import each_series_once

TEXT = 0xFFFFFFFF81000000
PER_CPU = 0x1F000


def make_build(shift: int = 0) -> Build:
    writer = BtfWriter()
    writer.struct("pair", 8, [("first", writer.integer("int", 4), 0)])
    symbols = make_symbols(
        [
            SymbolRow(PER_CPU, "runqueues", 1),
            SymbolRow(TEXT + shift - (1 << 16), "_text", 2),  # As on arm64.
            SymbolRow(TEXT + shift, "_stext", 2),
            SymbolRow(TEXT + shift, "first.isra.0", 2),
            SymbolRow(TEXT + shift + 64, "twin", 2),
            SymbolRow(TEXT + shift + 96, "twin", 2),
            SymbolRow(TEXT + shift + 128, "_end", 1),
        ]
    )
    btf = parse_btf(writer.bytes(), "a test")
    return Build(
        symbols, btf, TEXT + shift, TEXT + shift + 128, {"runqueues": 1}, "types"
    )


def contents(build: Build | DebugInfo) -> list[object]:
    """Return all that is in it, in objects of Python's own."""
    btf = build.btf
    return [
        list(build.symbols),
        [build.symbols.find(name) for name in ("_stext", "twin", "nosuch", "first")],
        [build.symbols.containing(build.start + at) for at in (0, 65, 200)],
        *(bytes(btf.types[:]), bytes(btf.strings[:])),
        *(list(btf.places), list(btf.named), btf.listed),
        *(build.start, build.end, dict(build.per_cpu)),
    ]


@pytest.mark.parametrize("shift", [0, 0x200000, 0x3E000000, -0x600000])
def test_another_place(tmp_path: Path, shift: int) -> None:
    cache = BuildCache(tmp_path / "builds")
    assert cache.find("key", TEXT) is None
    added = cache.add("key", TEXT, make_build())
    assert contents(added) == contents(make_build())
    found = cache.find("key", TEXT + shift)
    assert found is not None
    assert contents(found) == contents(make_build(shift))
    assert cache.find("other", TEXT) is None
    assert found.btf.find("pair", {found.btf.type(2).kind}) == 2


def test_a_guest_that_lies_about_its_types(tmp_path: Path) -> None:
    """It has the symbols of others, who read types of their own."""
    writer = BtfWriter()
    writer.struct("pair", 1 << 31, [])
    lie = parse_btf(writer.bytes(), "a test")
    honest = make_build()
    watchers = [BuildCache(tmp_path), BuildCache(tmp_path)]
    watchers[0].add("key", TEXT, replace(honest, btf=lie, btf_digest="lies"))
    for cache in watchers:
        found = cache.find("key", TEXT)
        assert found is not None
        assert found.btf_digest == "lies"  # So its types are not taken.
    for cache in watchers:
        assert contents(cache.add("key", TEXT, honest)) == contents(honest)
        again = cache.find("key", TEXT)
        assert again is not None
        assert contents(again) == contents(honest)


def test_compressed_once(tmp_path: Path) -> None:
    cache = BuildCache(tmp_path / "builds")
    data = struct.pack("<1000I", *range(1000))
    for _ in range(2):
        stream = cache.compress(data)
        assert stream == compress(data)
        assert decompress(stream, len(data), "a test") == data
    assert len([*(tmp_path / "builds").iterdir()]) == 1


def test_there_are_only_so_many(tmp_path: Path) -> None:
    cache = BuildCache(tmp_path)
    for number in range(20):
        cache.add(f"key{number}", 0, make_build())
        cache.find("key0", 0)
        os.utime(tmp_path / "key0.build", (2e9, 2e9))
    assert len([*tmp_path.iterdir()]) == 8
    assert cache.find("key0", 0) is not None
    assert cache.find("key19", 0) is not None
    assert cache.find("key5", 0) is None


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("")
    cache = BuildCache(place)
    assert contents(cache.add("key", 0, make_build())) == contents(make_build())
    assert cache.find("key", 0) is None
    assert cache.compress(b"data") == compress(b"data")


@pytest.mark.parametrize("size", [0, 7, 16, 100, 5000, 20000])
def test_a_file_that_is_cut(tmp_path: Path, size: int) -> None:
    cache = BuildCache(tmp_path)
    cache.add("key", 0, make_build())
    os.truncate(tmp_path / "key.build", size)
    assert cache.find("key", 0) is None


@pytest.mark.parametrize("at", range(0, 700, 7))
def test_a_file_with_other_bytes(tmp_path: Path, at: int) -> None:
    """It is found or not: nothing else happens."""
    cache = BuildCache(tmp_path)
    cache.add("key", 0, make_build())
    with open(tmp_path / "key.build", "r+b") as file:
        file.seek(at)
        file.write(b"9{\xff")
    cache.find("key", 0)


def test_files_of_others(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_columns(path, {"a": 1}, {"empty": b"", "numbers": b"\1\0\0\0"})
    columns = read_columns(path)
    assert columns.about == {"a": 1}
    assert list(columns.numbers("numbers", "I")) == [1]
    assert list(columns.numbers("empty", "I")) == []
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="symbolic link"):
        read_columns(tmp_path / "link")
    path.chmod(0o666)
    with pytest.raises(FormatError, match="others may write it"):
        read_columns(path)
    path.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(path, 12345, 12345)
        with pytest.raises(FormatError, match="12345's, expected this user's"):
            read_columns(path)


def test_digests() -> None:
    assert digest_of(b"ab", b"c") != digest_of(b"a", b"bc")
    assert digest_of(b"ab") == digest_of(bytearray(b"ab"))


@each_series_once
def test_a_real_kernel(dead: DeadMachine, tmp_path: Path) -> None:
    target = open_target(f"qmp:{dead.machine.qmp}")
    try:
        read = partial(read_own_debug_info, target, Recorder(target.memory))
        alone = read()
        assert alone.found is not None
        cache = BuildCache(tmp_path / "builds")
        for _ in range(2):
            shared = read(cache)
            assert shared.found is not None
            assert contents(shared.found) == contents(alone.found)
            assert shared.found.find("schedule", None, True)
        # The second time, it was not read from the kernel's memory.
        (path,) = (tmp_path / "builds").glob("*.build")
        place = read_columns(path).about["place"]
        known = cache.find(path.stem, place)
        assert known is not None
        assert cache.find(path.stem, 0) is None  # No kernel lies there.
        # Another kernel's types: what the file has is not believed.
        cache.add(path.stem, place, replace(known, btf=make_build().btf, btf_digest=""))
        found = read(cache).found
        assert found is not None
        assert contents(found) == contents(alone.found)
    finally:
        target.close()


@each_series_once
def test_a_core_image(core_image: Path, tmp_path: Path) -> None:
    """Its own note is read once; the next time, the file has it."""
    cache = BuildCache(tmp_path / "builds")
    with read_core(core_image) as core:
        alone = debug_info_of_core(core)
        for _ in range(2):
            assert contents(debug_info_of_core(core, cache)) == contents(alone)
        place, _ = split_place(core.debug_info_note(), "a test")
    (path,) = (tmp_path / "builds").glob("*.build")
    known = cache.find(path.stem, place)
    assert known is not None
    assert contents(known) == contents(alone)


def note_of(build: Build, **others: object) -> bytes:
    writer = BtfWriter()
    writer.struct("pair", 8, [("first", writer.integer("int", 4), 0)])
    note = DebugInfoNote(build.symbols, writer.bytes(), build.start, build.end)
    return pack_debug_info(replace(note, **others))  # type: ignore[arg-type]


def read_note(note: bytes, cache: BuildCache | None = None) -> DebugInfo:
    core = SimpleNamespace(
        name="a test",
        debug_info_note=lambda: note,
        debug_info=lambda: parse_debug_info(note, "a test"),
    )
    return debug_info_of_core(cast(CoreImage, core), cache)


def test_core_images_of_kernels_at_other_places(tmp_path: Path) -> None:
    """Each boot has its own place (KASLR); what is read once is right for all."""
    cache = BuildCache(tmp_path)
    for shift in (0, 0x200000, 0x3E000000, -0x600000):
        note = note_of(make_build(shift))
        for again in (cache, BuildCache(tmp_path)):
            assert contents(read_note(note, again)) == contents(read_note(note))
    assert len([*tmp_path.glob("*.build")]) == 1


@pytest.mark.parametrize("index", range(7))
@pytest.mark.parametrize("part", ["address", "name", "info", "size"])
def test_another_kernel(tmp_path: Path, index: int, part: str) -> None:
    """A guest that lies about its build gets its own."""
    cache = BuildCache(tmp_path)
    build = make_build()
    read_note(note_of(build), cache)
    rows = list(build.symbols)
    value = "other" if part == "name" else getattr(rows[index], part) + 1
    rows[index] = rows[index]._replace(**{part: value})
    note = note_of(replace(build, symbols=make_symbols(rows)))
    assert contents(read_note(note, cache)) == contents(read_note(note))
    for field in ("start", "end"):
        others = {field: getattr(build, field) + 8}
        note = note_of(build, **others)
        assert contents(read_note(note, cache)) == contents(read_note(note))


def test_types_are_shared(tmp_path: Path) -> None:
    """What was looked up in a build's types is not looked up again."""
    cache = BuildCache(tmp_path)
    found = [read_note(note_of(make_build(shift)), cache) for shift in (0, 4096)]
    assert found[0].btf is found[1].btf
    for number in range(10):
        cache.add(f"key{number}", 0, make_build())
    assert read_note(note_of(make_build()), cache).btf is not found[0].btf


def test_what_is_too_large_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_cache, "_MAX_SIZE", 100)
    cache = BuildCache(tmp_path)
    assert contents(cache.add("key", 0, make_build())) == contents(make_build())
    assert cache.find("key", 0) is None


@pytest.mark.parametrize(("size", "good"), [(8, True), (1 << 30, False)])
def test_damaged_types_stay_refused(tmp_path: Path, size: int, good: bool) -> None:
    """A core image of which a type is refused is no less so the second time."""
    writer = BtfWriter()
    writer.struct("pair", size, [("first", writer.integer("int", 4), 0)])
    build = make_build()
    note = DebugInfoNote(build.symbols, writer.bytes(), build.start, build.end)
    packed = pack_debug_info(note)
    core = SimpleNamespace(
        name="a test", debug_info_note=lambda: packed, debug_info=lambda: note
    )
    cache = BuildCache(tmp_path)
    for _ in range(2):
        found = debug_info_of_core(cast(CoreImage, core), cache)
        assert found.symbols.by_name, "each look-up searches all names"
        with nullcontext() if good else pytest.raises(FormatError, match="expected"):
            found.btf.type(2)
    assert len([*tmp_path.glob("*.build")]) == 1
    assert core.debug_info_is_whole
