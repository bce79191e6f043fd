# SPDX-License-Identifier: GPL-2.0-or-later
"""A folder of core images that is kept within limits, on real file systems."""

import fcntl
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import timedelta

import pytest

from kmemdump.coreimage import Death, read_core
from kmemdump.coreimage.folder import CoreFolder
from kmemdump.coreimage.retention import Limits
from rigs import small_core
from rigs.full_disk import fill, mounted_tmpfs, needs_root

TRIM = """
import sys
from pathlib import Path
from kmemdump.coreimage.folder import CoreFolder
from kmemdump.coreimage.retention import Limits
folder = CoreFolder(Path(sys.argv[1]), Limits(keep=int(sys.argv[2])))
print(*folder.trim(), sep="\\n")
"""


def write(folder, number, vm="vm", signature="a", name=None, **fields):
    name = name or f"{vm}-2025042{number // 10}T11310{number % 10}.000Z.core"
    time = small_core.TIME + timedelta(seconds=number)
    death = Death("panic", "panic", signature, f"id{number}", vm)
    return small_core.write(folder / name, time=time, death=death, **fields)


def names(folder):
    return sorted(os.listdir(folder))


def test_a_manifest_has_the_death(tmp_path):
    with read_core(write(tmp_path, 3, "web1", "oops: at #")) as core:
        manifest = core.manifest
    assert (manifest.vm, manifest.signature) == ("web1", "oops: at #")
    assert (manifest.death, manifest.death_id) == ("panic", "id3")


def test_keep(tmp_path):
    paths = [write(tmp_path, number) for number in range(5)]
    other = [write(tmp_path, number, "other") for number in range(2)]
    folder = CoreFolder(tmp_path, Limits(keep=3))
    assert folder.trim({paths[4].name}) == [paths[1].name, paths[2].name]
    left = {path.name for path in (paths[0], paths[3], paths[4], *other)}
    assert set(names(tmp_path)) - left == {".kmemdump.lock"}
    assert folder.trim() == []


def test_max_bytes(tmp_path):
    paths = [write(tmp_path, number) for number in range(4)]
    size = paths[0].stat().st_size
    assert CoreFolder(tmp_path, Limits(max_bytes=3 * size)).trim() == [paths[1].name]
    assert CoreFolder(tmp_path, Limits(max_bytes=3 * size)).trim() == []


def test_within_limits_nothing_is_read_or_made(tmp_path):
    path = write(tmp_path, 1)
    assert CoreFolder(tmp_path, Limits()).trim() == []
    assert names(tmp_path) == [path.name]


def test_only_what_a_watcher_wrote_is_deleted(tmp_path):
    """Captures, damaged files, links, devices and files of others stay."""
    ours = [write(tmp_path, number) for number in range(3)]
    outside = tmp_path / "outside"
    outside.mkdir()
    victim = write(outside, 4)
    start = "vm-20250422T11310"
    write(tmp_path, 5, vm="", name=f"{start}5.000Z.core")
    link = tmp_path / f"{start}6.000Z.core"
    link.symlink_to(victim)
    os.mkfifo(tmp_path / f"{start}7.000Z.core")
    (tmp_path / f"{start}8.000Z.core").write_bytes(victim.read_bytes()[:1000])
    (tmp_path / f"{start}9.000Z.core").write_text("\x7fELF no")
    (tmp_path / f"{start}10.000Z.core").mkdir()
    write(tmp_path, 6, name="vm-of somebody; rm -rf *\n.elf")
    write(tmp_path, 7, name=".vm-hidden.core")
    hostile = write(tmp_path, 8, vm="../vm", name="vm-..\n$(reboot).core")
    if os.geteuid() == 0:
        os.chown(write(tmp_path, 9, name="vm-other.core"), 12345, -1)
    before = set(names(tmp_path))
    fresh = {ours[2].name}
    deleted = CoreFolder(tmp_path, Limits(keep=1)).trim(fresh)
    assert sorted(deleted) == [item.name for item in ours[:2]]
    assert hostile.exists()  # Of another machine.
    assert victim.exists()
    assert before - set(names(tmp_path)) == {item.name for item in ours[:2]}


def test_a_file_that_was_replaced_is_not_deleted(tmp_path, monkeypatch):
    paths = [write(tmp_path, number) for number in range(2)]
    stored = CoreFolder._stored

    def replace(self, fd, start=""):
        found = stored(self, fd, start)
        paths[0].unlink()
        paths[0].write_bytes(b"somebody's")
        return found

    monkeypatch.setattr(CoreFolder, "_stored", replace)
    assert CoreFolder(tmp_path, Limits(keep=1)).trim({paths[1].name}) == []
    assert paths[0].read_bytes() == b"somebody's"


def test_find_death(tmp_path):
    path = write(tmp_path, 1)
    write(tmp_path, 2, "other")
    folder = CoreFolder(tmp_path, Limits())
    assert folder.find_death("vm", "id1") == path
    assert folder.find_death("vm", "id2") is None
    assert folder.find_death("vm", "") is None
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert folder.find_death("vm", "id1") is None
    assert CoreFolder(moved, Limits()).find_death("vm", "id1") == moved / path.name
    write(moved, 1, vm="vm", name=path.name).write_bytes(b"")
    assert CoreFolder(moved, Limits()).find_death("vm", "id1") is None


def test_several_at_once(tmp_path):
    """None deletes what another one counts on."""
    for number in range(40):
        write(tmp_path, number, f"vm{number % 2}")
    with ThreadPoolExecutor(4) as pool:
        done = list(
            pool.map(
                lambda _: subprocess.run(
                    [sys.executable, "-c", TRIM, tmp_path, "4"],
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout.split(),
                range(4),
            )
        )
    deleted = [name for names in done for name in names]
    assert len(deleted) == len(set(deleted)) == 32
    assert len(list(tmp_path.glob("*.core"))) == 8


def test_the_lock_of_another(tmp_path, monkeypatch):
    monkeypatch.setattr("kmemdump.coreimage.folder._LOCK_PATIENCE", 0.1)
    paths = [write(tmp_path, number) for number in range(3)]
    with open(tmp_path / ".kmemdump.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert CoreFolder(tmp_path, Limits(keep=2)).trim() == []
    assert CoreFolder(tmp_path, Limits(keep=2)).trim() == [paths[1].name]


def test_a_lock_that_is_a_link(tmp_path):
    paths = [write(tmp_path, number) for number in range(3)]
    (tmp_path / ".kmemdump.lock").symlink_to("/dev/null")
    assert CoreFolder(tmp_path, Limits(keep=2)).trim() == [paths[1].name]


def test_partial_files_of_the_dead(tmp_path):
    left = tmp_path / ".vm-20250422T113101.000Z.core.partial-0123abcd"
    left.write_bytes(b"half")
    locked = tmp_path / ".vm-20250422T113102.000Z.core.partial-0123abcd"
    (tmp_path / ".vm.partial-link0000").symlink_to(left)
    (tmp_path / ".vm.partial-00000000").symlink_to("/etc/passwd")
    (tmp_path / "vm.partial-00000000").touch()
    with open(locked, "wb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert CoreFolder(tmp_path, Limits()).remove_partial_files() == 1
    assert not left.exists()
    assert len(names(tmp_path)) == 4
    assert CoreFolder(tmp_path / "none", Limits()).remove_partial_files() == 0


def test_a_folder_that_is_gone(tmp_path):
    folder = CoreFolder(tmp_path / "gone", Limits())
    assert folder.trim() == []
    assert folder.find_death("vm", "id") is None
    assert "No such file" in problem_of(folder, 1)


@needs_root
def test_room(tmp_path):
    with mounted_tmpfs(tmp_path, 1 << 20) as disk:
        paths = [write(disk, number) for number in range(6)]
        size = paths[0].stat().st_size
        folder = CoreFolder(disk, Limits(min_free=100_000))
        assert problem_of(folder, 200_000) is None
        assert len(list(disk.glob("*.core"))) == 6
        fill(disk)
        # Not all that may go is enough for that: nothing is deleted.
        problem = problem_of(folder, 900_000)
        assert "0.0 kB free: a core image needs 0.9 MB, and 0.1 MB are kept" in problem
        assert len(list(disk.glob("*.core"))) == 6
        assert problem_of(CoreFolder(disk, Limits(min_free=0)), size + 1) is None
        assert [path.exists() for path in paths] == [True, *[False] * 2, *[True] * 3]


@needs_root
def test_too_many_files(tmp_path):
    with mounted_tmpfs(tmp_path, 1 << 20, files=12) as disk:  # And the folder, and …
        paths = [write(disk, number) for number in range(8)]
        folder = CoreFolder(disk, Limits(min_free=0))
        assert problem_of(folder, 1000) is None
        assert 1 <= sum(not path.exists() for path in paths) <= 4
        assert paths[0].exists()
        assert paths[7].exists()
        for path in paths[1:7]:
            if path.exists():  # Now it is nothing that may go.
                path.write_bytes(b"")
        for number in range(os.statvfs(disk).f_favail):
            (disk / f"{number}").touch()
        assert "can hold no more files" in problem_of(folder, 1000)


@needs_root
def test_room_is_given_once(tmp_path):
    with mounted_tmpfs(tmp_path, 1 << 20) as disk:
        folders = [CoreFolder(disk, Limits(min_free=0)) for _ in range(2)]
        with folders[0].reserve(400_000, beside=100_000) as problem:
            assert problem is None
            assert problem_of(folders[1], 600_000) is None
            assert "a core image needs 1.1 MB" in problem_of(folders[1], 700_000)
        assert problem_of(folders[1], 700_000) is None
        assert set(names(disk)) == {".kmemdump.lock"}


def test_the_size_of_all_holds_while_core_images_are_written(tmp_path):
    paths = [write(tmp_path, number) for number in range(5)]
    size = paths[0].stat().st_size
    folders = [CoreFolder(tmp_path, Limits(max_bytes=5 * size)) for _ in range(2)]
    with folders[0].reserve(size):
        assert [path.exists() for path in paths] == [True, False, True, True, True]
        with folders[1].reserve(size):
            assert [path.exists() for path in paths] == [
                True,
                *[False] * 2,
                *[True] * 2,
            ]
            write(tmp_path, 5)
            write(tmp_path, 6)
    assert folders[0].trim() == []


WRITE = """
import sys
from datetime import timedelta
from pathlib import Path
from kmemdump.coreimage import Death, folder as module
from kmemdump.coreimage.folder import CoreFolder
from kmemdump.coreimage.retention import Limits
from rigs import small_core
module._LOCK_PATIENCE = 600  # Who does not get the lock in time deletes nothing.
path, vm = Path(sys.argv[1]), sys.argv[2]
most, size = map(int, sys.argv[3:])
folder = CoreFolder(path, Limits(4, most, 0))
for number in range(15):
    name = f"{vm}-{number:02}.core"
    time = small_core.TIME + timedelta(seconds=number)
    with folder.reserve(size, beside=size) as problem:
        assert problem is None
        small_core.write(path / name, time=time, death=Death("a", "b", "c", "d", vm))
    folder.trim({name})
    assert (path / name).exists()
"""


@pytest.mark.slow
def test_limits_hold_all_the_time(tmp_path):
    """Several VMs die again and again, each in a process of its own."""
    size = write(tmp_path, 0).stat().st_size
    most, environ = 12 * size, os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    seen = []
    with ExitStack() as stack:
        command = [sys.executable, "-c", WRITE, str(tmp_path)]
        writers = [
            stack.enter_context(
                subprocess.Popen(
                    [*command, f"vm{number}", str(most), str(size)], env=environ
                )
            )
            for number in range(4)
        ]
        while any(writer.poll() is None for writer in writers):
            seen.append(total(tmp_path))
    assert [writer.returncode for writer in writers] == [0] * 4
    assert 6 * size < max(seen) <= most
    counts = Counter(name.partition("-")[0] for name in names(tmp_path))
    assert all(counts[f"vm{number}"] <= 4 for number in range(4))
    assert counts["vm"] == 1  # The first of its cause.
    assert not list(tmp_path.glob(".*partial*"))


def total(folder):
    """Return the size of all core images at one moment, or a little before."""
    size = 0
    for path in folder.glob("*.core"):
        with suppress(FileNotFoundError):
            size += path.stat().st_size
    return size


RESERVE = """
import sys, time
from pathlib import Path
from kmemdump.coreimage.folder import CoreFolder
from kmemdump.coreimage.retention import Limits
with CoreFolder(Path(sys.argv[1]), Limits()).reserve(1000):
    print("ready", flush=True)
    time.sleep(60)
"""


def test_who_dies_reserves_nothing(tmp_path):
    paths = [write(tmp_path, number) for number in range(3)]
    size = paths[0].stat().st_size
    folder = CoreFolder(tmp_path, Limits(max_bytes=3 * size + 500))
    with subprocess.Popen(
        [sys.executable, "-c", RESERVE, tmp_path], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        process.kill()
    assert problem_of(folder, 100) is None
    assert len(list(tmp_path.glob("*.core"))) == 3


def problem_of(folder, size):
    with folder.reserve(size) as problem:
        return problem
