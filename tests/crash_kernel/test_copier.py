# SPDX-License-Identifier: GPL-2.0-or-later
"""The crash kernel's copier, run here on files like /proc/vmcore."""

import os
import platform
import random
import re
import shutil
import signal
import struct
import subprocess
import time
import zlib
from pathlib import Path

import pytest

from kmemdump.backends.elf_header_region import Description
from kmemdump.backends.kdump import KdumpBackend
from kmemdump.cli import main
from kmemdump.collect.source import Options, open_source
from kmemdump.core import open_core
from kmemdump.errors import BackendError, UnsupportedError
from kmemdump.formats.copied import read_copied
from kmemdump.formats.followed import Followed, pack_followed
from kmemdump.formats.kdump_list import LIST_SIZE, half_places, parse_list
from kmemdump.lab import AARCH64, X86_64, PackageCache, get_architecture
from kmemdump.lab.copier import build_copier
from kmemdump.marking.registry import Registry
from kmemdump.memory.ranges import Range, Region
from rigs.copier import (
    INFO,
    LIST,
    MARKED,
    REGIONS,
    Ram,
    assert_whole,
    dump,
    mark,
    run_copier,
    valid_raw,
    write_vmcore,
)
from rigs.synthetic import vmcoreinfo

HERE = get_architecture(platform.machine())
SOURCE = Path(__file__).parents[2] / "kdump"


def written(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def check(path: Path, ram: Ram, output: Path) -> None:
    """Check what is collected of a copy against the memory that it was made of."""
    with open_source(str(path), Options()) as target:
        assert target.dump.backend == "kdump"
        assert not target.dump.warnings
        assert target.dump.marked == MARKED
        assert [it.name for it in target.dump.regions] == ["Kr0", "Kr1", "Kr2"]
        assert [tuple(it.range) for it in target.dump.regions] == list(REGIONS)
        for address, size in REGIONS:
            assert target.memory.read(address, size) == ram.read(address, size)
        assert len(target.registers()) == 2
        assert target.vmcoreinfo().raw == INFO + b"CRASHTIME=1700000000\n"
    assert main(["collect", str(path), "-o", str(output)]) == 0
    with open_core(output) as core:
        assert core.manifest.backend == "kdump"


def test_is_small(lab_cache):
    for architecture in (X86_64, AARCH64):
        path = build_copier(lab_cache, architecture)
        assert path.stat().st_size < 300 << 10
        head = path.read_bytes()[:64]
        # Static: no program header names an interpreter, PT_INTERP.
        offset, count = struct.unpack_from("<32xQ16xH", head)
        data = path.read_bytes()
        kinds = {
            struct.unpack_from("<I", data, offset + i * 56)[0] for i in range(count)
        }
        assert 3 not in kinds


def test_is_built_wherever_the_cache_is(tmp_path):
    """make has a meaning for each of these characters."""
    before = os.listdir(SOURCE)
    cache = PackageCache(tmp_path / "a user's: $cache #1")
    path = build_copier(cache, HERE)
    assert path.read_bytes()[:4] == b"\x7fELF"
    assert os.access(path, os.X_OK)
    assert os.listdir(SOURCE) == before


def test_is_built_with_a_compiler_of_another_name(tmp_path, monkeypatch):
    """As Fedora's."""
    for name in ("make", "gcc", "mkdir", "as", "ld", "sh"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build_copier(PackageCache(tmp_path / "cache"), HERE).exists()
    (tmp_path / "gcc").unlink()
    with pytest.raises(UnsupportedError, match="gcc is not installed\n"):
        build_copier(PackageCache(tmp_path / "another"), HERE)


def test_copies_into_a_folder(copier, ram, tmp_path):
    vmcore, out = dump(ram, tmp_path / "vmcore"), tmp_path / "a/b"
    done = run_copier(copier, f"vmcore={vmcore}", f"to=file:{out}")
    assert (done.returncode, written(out)) == (0, ["kmemdump-1700000000.elf"]), done
    path = out / "kmemdump-1700000000.elf"
    assert path.stat().st_mode & 0o777 == 0o600
    check(path, ram, tmp_path / "core")
    data = path.read_bytes()
    copied = read_copied(lambda at, n: data[at : at + n], len(data), "copy")
    assert copied.size == len(data)
    assert zlib.crc32(data[copied.data :]) == copied.data_check


def test_copies_to_a_name_as_makedumpfile_does(copier, ram, tmp_path):
    vmcore, out = dump(ram, tmp_path / "vmcore"), tmp_path / "vmcore-incomplete"
    done = run_copier(copier, str(vmcore), str(out))
    assert done.returncode == 0, done
    assert written(tmp_path) == ["vmcore", "vmcore-incomplete"]
    check(out, ram, tmp_path / "core")
    done = run_copier(copier, str(vmcore), f"/{'long' * 100}")
    assert (done.returncode, "is too long" in done.stderr) == (2, True)
    done = run_copier(copier, str(vmcore), str(out), "/more")
    assert (done.returncode, "at most two paths" in done.stderr) == (2, True)
    for place in ("as:relative", f"as:/{'long' * 63}", f"file:/{'long' * 60}"):
        done = run_copier(copier, str(vmcore), f"to={place}")
        assert (done.returncode, "not written: " in done.stderr) == (4, True)


def test_copies_into_a_partition(copier, ram, tmp_path):
    vmcore, disk = dump(ram, tmp_path / "vmcore"), tmp_path / "disk"
    disk.write_bytes(b"Raw_Dmp!".ljust(1 << 20, b"\0"))
    done = run_copier(copier, f"vmcore={vmcore}", f"to=raw:{disk}")
    assert done.returncode == 0, done
    assert disk.stat().st_size == 1 << 20
    check(disk, ram, tmp_path / "core")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (bytes(1 << 16), "is not prepared"),
        (b"\x7fELF".ljust(1 << 16), "is not prepared"),
        (b"Raw_Dmp!".ljust(4096, b"\0"), "no space left"),
    ],
    ids=("zeros", "a program", "small"),
)
def test_leaves_other_partitions_alone(copier, ram, tmp_path, content, why):
    vmcore, disk, out = dump(ram, tmp_path / "vmcore"), tmp_path / "disk", tmp_path
    disk.write_bytes(content)
    places = f"to=raw:{disk}", f"to=file:{out}/out"
    done = run_copier(copier, f"vmcore={vmcore}", *places)
    assert why in done.stderr
    assert disk.read_bytes() == content
    # The next place has it instead.
    assert done.returncode == 0
    assert written(out / "out") == ["kmemdump-1700000000.elf"]


def test_the_text_in_memory_lacks_only_the_time_of_death(copier, ram, tmp_path):
    ram.data[LIST_SIZE : LIST_SIZE + len(INFO) + 1] = INFO + b"\0"
    vmcore, out = dump(ram, tmp_path / "vmcore"), tmp_path / "out"
    run_copier(copier, f"vmcore={vmcore}", f"to=file:{out}")
    check(out / "kmemdump-1700000000.elf", ram, tmp_path / "core")


def test_a_damaged_copy_is_known(copier, ram, tmp_path, capsys):
    vmcore, out = dump(ram, tmp_path / "vmcore"), tmp_path / "out"
    run_copier(copier, f"vmcore={vmcore}", f"to=file:{out}")
    path = out / "kmemdump-1700000000.elf"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    assert main(["collect", str(path), "-o", str(tmp_path / "core")]) == 1
    assert "the checksum of its memory is wrong" in capsys.readouterr().err


def test_what_is_not_there_is_missing(copier, ram, tmp_path, capsys):
    del ram.data[LIST_SIZE + 0x4000 :]  # In the middle of the last region.
    vmcore, out = dump(ram, tmp_path / "vmcore"), tmp_path / "out"
    done = run_copier(copier, f"vmcore={vmcore}", f"to=file:{out}")
    assert done.returncode == 1
    assert "4096 bytes of the regions could not be read" in done.stderr
    path = out / "kmemdump-1700000000.elf"
    assert main(["collect", str(path), "-o", str(tmp_path / "core")]) == 1
    assert "4096 bytes of the regions could not be read" in capsys.readouterr().err
    with open_source(str(path), Options()) as target:
        assert target.memory.read(LIST.end + 0x3000, 0x1000) == ram.read(
            LIST.end + 0x3000, 0x1000
        )


def refusal(copier: Path, vmcore: Path, folder: Path, *settings: str) -> str:
    """Return why nothing is copied."""
    out = folder / "out"
    done = run_copier(copier, f"vmcore={vmcore}", f"to=file:{out}", *settings)
    assert done.returncode == 3
    assert not out.exists()
    return done.stderr


def test_says_why_there_is_no_list(copier, ram, tmp_path):
    vmcore = tmp_path / "vmcore"
    write_vmcore(vmcore, [(LIST.start, bytes(1 << 20))])
    assert "nothing was marked" in refusal(copier, vmcore, tmp_path)
    assert "no list at 0x400000" in refusal(copier, vmcore, tmp_path, "list=0x400000")
    # Another boot's, which KASLR put elsewhere.
    write_vmcore(
        vmcore, [(LIST.start, bytes(ram.data))], info=vmcoreinfo(KERNELOFFSET="2000000")
    )
    assert "is foreign: another kernel's" in refusal(copier, vmcore, tmp_path)
    # A copy of a list, as in a cached file.
    write_vmcore(vmcore, [(LIST.start + LIST_SIZE, bytes(ram.data))])
    assert "nothing was marked" in refusal(copier, vmcore, tmp_path)
    for at in half_places():
        ram.data[at + 100] ^= 1
    assert "no half of it is whole" in refusal(copier, dump(ram, vmcore), tmp_path)
    ram.data[40] ^= 1
    assert "checksum of its start is wrong" in refusal(
        copier, dump(ram, vmcore), tmp_path
    )
    vmcore.write_bytes(b"no core")
    assert "cannot be read: is this a crash kernel?" in refusal(
        copier, vmcore, tmp_path
    )


def test_finds_the_list_among_stale_ones(copier, ram, tmp_path):
    stale = Ram()
    registry = mark(stale, vmcoreinfo("5.10.0"))
    for _ in range(5):  # Its sequence number is larger.
        registry.set_description(Description(62, vmcoreinfo("5.10.0")))
    moved = Ram(16 << 20)
    other = Registry(description=Description(62, INFO, marked=MARKED))
    other.attach(KdumpBackend(moved, Range(16 << 20, LIST_SIZE)))
    other.register("only", LIST.start + 0x100, 16)
    vmcore = tmp_path / "vmcore"
    write_vmcore(
        vmcore,
        [(LIST.start, bytes(stale.data)), (16 << 20, bytes(moved.data))],
    )
    done = run_copier(copier, f"vmcore={vmcore}", f"to=file:{tmp_path}/out")
    assert done.returncode == 0, done
    assert "1 regions" in done.stderr


def test_a_list_that_says_less_is_foreign(copier, ram, tmp_path):
    """Any process can write one, with any sequence number."""
    forged = Ram(16 << 20)
    less = b"".join(INFO.splitlines(keepends=True)[:3])
    other = Registry(description=Description(62, less))
    other.attach(KdumpBackend(forged, Range(16 << 20, LIST_SIZE)))
    other.register("forged", LIST.start + 0x100, 16)
    vmcore = tmp_path / "vmcore"
    write_vmcore(vmcore, [(16 << 20, bytes(forged.data))])
    assert "is foreign: another kernel's" in refusal(copier, vmcore, tmp_path)


def test_the_list_of_the_last_boot_is_older(copier, tmp_path, monkeypatch):
    """Without KASLR, it says the same; it had changed ten thousand times."""
    now = 1_700_000_000
    monkeypatch.setattr("kmemdump.backends.kdump.time.time", lambda: now)
    places = {}
    for start, changes in ((16 << 20, 10_000), (LIST.start, 1)):
        places[start] = Ram(start)
        backend = KdumpBackend(places[start], Range(start, LIST_SIZE))
        registry = Registry(description=Description(62, INFO, marked=MARKED))
        registry.attach(backend)
        registry.register(f"at_{start:x}", LIST.start + 0x100, 16)
        backend._sequence += changes
        registry.set_description(Description(62, INFO, marked=MARKED))
        now += 86400
    vmcore = tmp_path / "vmcore"
    write_vmcore(vmcore, [(at, bytes(it.data)) for at, it in places.items()])
    done = run_copier(copier, f"vmcore={vmcore}", f"to=file:{tmp_path}/out")
    number = re.search(r"regions, list (\d+)", done.stderr)
    assert int(number[1]) >> 20 == 1_700_086_400


def page_tables(root: int, virtual: int, physical: int) -> dict[int, bytes]:
    """Return the four tables of x86-64 that lead to a page."""
    tables = {}
    for level in range(4):
        table = bytearray(4096)
        index = virtual >> 39 - 9 * level & 511
        below = physical if level == 3 else root + 4096 * (level + 1)
        struct.pack_into("<Q", table, index * 8, below | 0x63)
        tables[root + 4096 * level] = bytes(table)
    return tables


def dump_with_a_task(ram: Ram, vmcore: Path, *marked: Region) -> tuple[int, int]:
    """Write a vmcore with a CPU's current task; return where it and its stack are."""
    task_at, stack_at = 0xFFFFC90000010000, 0xFFFFC90000080000
    pointer, root = LIST.end + 0x100, 0x2610000  # SYMBOL(swapper_pg_dir)
    task = struct.pack("<4Q", 1, 2, stack_at, 4).ljust(4096, b"t")
    followed = pack_followed([Followed(pointer, 4000, 16, 8192)])
    registry = Registry(description=Description(62, INFO, followed, marked=MARKED))
    registry.attach(KdumpBackend(ram, LIST))
    registry.register("one", LIST.end, 16)
    registry.update([*registry, *marked])
    ram.write(pointer, struct.pack("<Q", task_at))
    pages = ((task_at, 0x4000), (stack_at, 0x6000), (stack_at + 4096, 0x7000))
    tables: dict[int, bytes] = {}
    for virtual, place in pages:
        for at, table in page_tables(root, virtual, LIST.end + place).items():
            tables[at] = bytes(map(max, table, tables.get(at, bytes(4096))))
    ram.write(LIST.end + 0x4000, task)
    ram.write(LIST.end + 0x6000, b"s" * 8192)
    write_vmcore(vmcore, [*tables.items(), (LIST.start, bytes(ram.data))])
    return task_at, stack_at


def test_follows_the_current_task_to_its_stack(copier, tmp_path):
    ram, vmcore, out = Ram(), tmp_path / "vmcore", tmp_path / "out"
    task_at, stack_at = dump_with_a_task(ram, vmcore)
    done = run_copier(copier, f"vmcore={vmcore}", f"to=file:{out}")
    assert (done.returncode, "3 regions" in done.stderr) == (0, True), done
    with open_source(str(out / "kmemdump-1700000000.elf"), Options()) as target:
        found = {it.virtual: it.range for it in target.dump.regions}
        assert found[task_at] == Range(LIST.end + 0x4000, 4096)
        assert found[stack_at] == Range(LIST.end + 0x6000, 8192)
        assert target.memory.read(LIST.end + 0x6000, 8192) == b"s" * 8192


@pytest.mark.parametrize("same", [True, False], ids=["same", "another"])
def test_follows_a_stack_that_is_marked(copier, tmp_path, same):
    """Once if it has one virtual address, and each is whole if there are two."""
    ram, vmcore, out = Ram(), tmp_path / "vmcore", tmp_path / "out"
    stack_at = 0xFFFFC90000080000
    # With what lies behind it, so that two of different sizes start at one address.
    virtual = stack_at if same else 0xFFFF888000000000
    marked = Region(0, "stack", LIST.end + 0x6000, 0x3000, virtual)
    dump_with_a_task(ram, vmcore, marked)
    done = run_copier(copier, f"vmcore={vmcore}", f"to=file:{out}")
    count = 3 if same else 4
    assert (done.returncode, f"{count} regions" in done.stderr) == (0, True), done
    path = out / "kmemdump-1700000000.elf"
    assert main(["collect", str(path), "-o", str(tmp_path / "core")]) == 0
    with open_source(str(path), Options()) as target:
        assert not target.dump.warnings
        found = {it.virtual: it.range.size for it in target.dump.regions}
        assert found[virtual] == 0x3000
        assert same or found[stack_at] == 0x2000


def test_a_list_is_whole_between_any_two_stores(copier, tmp_path):
    """The machine dies after each store of an update: before it, or with all of it."""
    ram = Ram()
    registry = mark(ram)
    before, done = bytes(ram.data), len(ram.stores)
    for region in list(registry)[1:]:
        registry.unregister(region.id)
    stores = ram.stores[done:]
    assert len(stores) > 100
    memory = bytearray(before)
    vmcore, out = tmp_path / "vmcore", tmp_path / "out"
    seen = []
    # All of the last ones, where it becomes valid, and some of the others.
    chosen = {*range(0, len(stores), 17), *range(len(stores) - 12, len(stores))}
    for i, (address, data) in enumerate(stores):
        at = address - LIST.start
        memory[at : at + len(data)] = data
        found = parse_list(bytes(memory), LIST.start, "list").current
        assert found is not None
        if i in chosen:
            write_vmcore(vmcore, [(LIST.start, bytes(memory))])
            said = run_copier(copier, f"vmcore={vmcore}", f"to=file:{out}")
            assert said.returncode == 0, (i, said)
            seen.append(int(said.stderr.split(" regions")[0].split()[-1]))
    assert set(seen) <= {3, 2, 1}
    assert sorted(seen, reverse=True) == seen
    assert seen[-1] == 1


def test_the_next_agent_goes_on_with_the_list(ram):
    first = parse_list(ram.read(LIST.start, LIST_SIZE), LIST.start, "list").current
    mark(ram)
    then = parse_list(ram.read(LIST.start, LIST_SIZE), LIST.start, "list").current
    assert then.sequence > first.sequence
    KdumpBackend(ram, LIST).withdraw()
    assert not any(ram.data[:16])
    with pytest.raises(BackendError, match="no place for a list"):
        KdumpBackend(ram, Range(LIST.start + 4096, LIST_SIZE))


def test_a_detached_list_is_empty(ram):
    registry = mark(ram)
    registry.detach()
    assert parse_list(ram.read(LIST.start, LIST_SIZE), LIST.start, "").current is None


def test_a_list_has_an_end(ram):
    registry = mark(ram)
    many = [Region(0, f"m{i}", 0x1000 + i * 64, 32) for i in range(20_000)]
    registry.update(many)
    assert "expected at most 1046" in registry.description_problem
    # The last one that had room stays.
    assert parse_list(ram.read(LIST.start, LIST_SIZE), LIST.start, "").current


def test_settings_are_checked(copier, tmp_path):
    for setting in ("then=dance", "list=x", "timeout=0", "to", "list=0x1g"):
        done = run_copier(copier, setting)
        assert (done.returncode, "is not a setting" in done.stderr) == (2, True)
    assert run_copier(copier).returncode == 2
    assert run_copier(copier, f"config={tmp_path}/none").returncode == 2


def test_gives_up_in_time(copier, ram, tmp_path):
    vmcore, fifo = dump(ram, tmp_path / "vmcore"), tmp_path / "fifo"
    os.mkfifo(fifo)  # Nobody reads it, so opening it waits for ever.
    settings = tmp_path / "conf"
    settings.write_text(f"# test\nto=console:{fifo}\ntimeout=1\n")
    done = run_copier(copier, f"vmcore={vmcore}", f"config={settings}")
    assert done.returncode == 4
    assert "not done in 1 s" in done.stderr


def test_a_full_disk_leaves_no_half_file(copier, ram, tmp_path):
    vmcore, out = dump(ram, tmp_path / "vmcore"), tmp_path / "out"
    out.mkdir()
    limited = ["prlimit", "--fsize=8192", str(copier)]
    done = subprocess.run(
        [*limited, f"vmcore={vmcore}", f"to=file:{out}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 4
    # A signal ends it, as an untimely kill does: the partial file has no final name.
    assert not [it for it in written(out) if it.endswith(".elf")]


@pytest.mark.matrix
@pytest.mark.parametrize("kind", ["file", "raw"])
def test_killed_at_any_moment(copier, tmp_path, kind):
    """A copy has its final name, or its valid flag, once all of it is there."""
    ram = Ram()
    ram.data[LIST_SIZE:] = os.urandom(len(ram.data) - LIST_SIZE)
    registry = mark(ram)
    registry.register("list", LIST.start, LIST_SIZE)  # Two megabytes more.
    vmcore, out, disk = dump(ram, tmp_path / "v"), tmp_path / "out", tmp_path / "disk"
    place = f"file:{out}" if kind == "file" else f"raw:{disk}"
    chance = random.Random(7)
    disk.write_bytes(b"Raw_Dmp!".ljust(8 << 20, b"\0"))
    start = time.monotonic()
    assert run_copier(copier, f"vmcore={vmcore}", f"to={place}").returncode == 0
    most = 1.5 * (time.monotonic() - start)
    whole = 0
    for _ in range(100):
        disk.write_bytes(b"Raw_Dmp!".ljust(8 << 20, b"\0"))
        shutil.rmtree(out, ignore_errors=True)
        process = subprocess.Popen(
            [copier, f"vmcore={vmcore}", f"to={place}"],
            start_new_session=True,  # With its child.
            stderr=subprocess.DEVNULL,
        )
        time.sleep(chance.uniform(0, most))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        found = valid_raw(disk.read_bytes())
        if kind == "file":
            names = written(out) if out.exists() else []
            path = out / "kmemdump-1700000000.elf"
            found = path.read_bytes() if path.name in names else None
        if found is None:
            continue
        assert_whole(found)
        whole += 1
    assert whole < 100
