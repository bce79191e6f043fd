# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that get their name when they are whole."""

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kmemdump.errors import KmemdumpError, OutputError
from kmemdump.files import PartialFile

_WRITE_AND_WAIT = """
import sys, time
from kmemdump.files import PartialFile
with PartialFile(sys.argv[1]) as output:
    output.write(b"half")
    output.flush()
    print("ready", flush=True)
    time.sleep(60)
"""


def test_write(tmp_path: Path) -> None:
    path = tmp_path / "core"
    path.write_bytes(b"old")
    path.chmod(0o644)
    with PartialFile(path) as output:
        output.seek(4)
        output.write(b"data")
        output.seek(0)
        output.write(b"head")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"headdata"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["core"]


def test_write_through_link(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    link = tmp_path / "core"
    link.symlink_to("far/core")
    with PartialFile(link) as output:
        output.write(b"data")
    assert link.is_symlink()
    assert (tmp_path / "far" / "core").read_bytes() == b"data"


OTHER = 1000


def write_through(link: Path) -> None:
    with PartialFile(link) as output:
        output.write(b"data")


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@as_root
@pytest.mark.parametrize("mode", [0o1777, 0o777, 0o775])
@pytest.mark.parametrize("place", ["file", "folder", "by way of ours"])
def test_links_of_others_are_not_followed(
    tmp_path: Path, mode: int, place: str
) -> None:
    """As another user would plant it in /tmp, for root to overwrite a file."""
    (tmp_path / "etc").mkdir()
    victim = tmp_path / "etc" / "core"
    victim.write_bytes(b"precious")
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(mode)
    link = shared / ("etc" if place == "folder" else "core")
    link.symlink_to(victim.parent if place == "folder" else victim)
    os.chown(link, OTHER, OTHER, follow_symlinks=False)
    path = link / "core" if place == "folder" else link
    if place == "by way of ours":
        path = tmp_path / "ours"
        path.symlink_to(link)
    with pytest.raises(OutputError, match=r"is a link of user 1000.*\nwrite to anoth"):
        write_through(path)
    assert victim.read_bytes() == b"precious"
    assert sorted(os.listdir(victim.parent)) == ["core"]
    assert sorted(os.listdir(shared)) == [link.name]


@as_root
def test_links_that_are_followed(tmp_path: Path) -> None:
    """Ours, wherever; and others' where only we can have put them."""
    far = tmp_path / "far"
    far.mkdir()
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "core").symlink_to("../far/one")
    write_through(shared / "core")
    private = tmp_path / "private"
    private.mkdir(0o755)
    (private / "core").symlink_to(f"{far}/./../far//two")
    os.chown(private / "core", OTHER, OTHER, follow_symlinks=False)
    write_through(private / "core")
    assert sorted(os.listdir(far)) == ["one", "two"]
    assert (far / "two").read_bytes() == b"data"


def test_links_that_loop(tmp_path: Path) -> None:
    (tmp_path / "core").symlink_to("core")
    with pytest.raises(OutputError, match="Too many levels of symbolic links"):
        write_through(tmp_path / "core")


def test_relative_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    for name in ("a", "./b", "../c", "../in/./d", f"{tmp_path}/in/../e"):
        write_through(Path(name))
    assert sorted(os.listdir(".")) == ["a", "b", "d"]
    assert sorted(os.listdir("..")) == ["c", "e", "in"]
    before = len(os.listdir("/proc/self/fd"))
    for name in (".", "/", "..", "../in", "a/b", "none/b"):
        with pytest.raises(OutputError, match=r"folder|Not a directory"):
            write_through(Path(name))
    assert len(os.listdir("/proc/self/fd")) == before


def write_and_raise(path: Path, error: type[BaseException]) -> None:
    with PartialFile(path) as output:
        output.write(b"data")
        raise error


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
def test_failure_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error):
        write_and_raise(tmp_path / "core", error)
    assert os.listdir(tmp_path) == []


def test_failure_leaves_the_old(tmp_path: Path) -> None:
    path = tmp_path / "core"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError):
        write_and_raise(path, ZeroDivisionError)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["core"]


def test_disk_full(tmp_path: Path) -> None:
    """What the limit on a file's size gives is what a full disk gives."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "core"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(KmemdumpError) as caught, PartialFile(path) as output:
            output.write(bytes(1 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert str(caught.value) == f"cannot write {path}: {os.strerror(errno.EFBIG)}"
    assert os.listdir(tmp_path) == []


def test_disk_full_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    path = tmp_path / "core"
    with (
        pytest.raises(KmemdumpError, match="No space left on device"),
        PartialFile(path) as output,
    ):
        output.write(b"data")
    assert os.listdir(tmp_path) == []


def test_the_disk_writes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = threading.Event()
    fdatasync = os.fdatasync

    def start(fd: int) -> None:
        started.set()
        fdatasync(fd)

    monkeypatch.setattr(os, "fdatasync", start)
    data = os.urandom(9 << 20)
    with PartialFile(tmp_path / "core") as output:
        output.write(data)
        assert started.wait(60)
        output.write(data)
    assert (tmp_path / "core").read_bytes() == data + data


def test_large_files_are_synced_in_large_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = []
    monkeypatch.setattr(os, "fdatasync", syncs.append)
    data = bytes(1 << 20)
    with PartialFile(tmp_path / "core") as output:
        for _ in range(64):
            output.write(data)
    assert 1 <= len(syncs) <= 6


def test_disk_that_fails_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells it once: the last sync of all then succeeds."""

    def fdatasync(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    with (
        pytest.raises(KmemdumpError, match="Input/output error"),
        PartialFile(tmp_path / "core") as output,
    ):
        output.write(bytes(9 << 20))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("folder", "it is a folder"),
        ("none/core", "does not exist"),
        ("file/core", "Not a directory"),
        ("fifo", "it is not a regular file"),
    ],
)
def test_impossible_place(tmp_path: Path, name: str, problem: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    before = sorted(os.listdir(tmp_path))
    with (
        pytest.raises(KmemdumpError, match=f"cannot write .*{problem}"),
        PartialFile(tmp_path / name),
    ):
        pytest.fail("the body was run")
    assert sorted(os.listdir(tmp_path)) == before


def test_killed(tmp_path: Path) -> None:
    """A killed writer leaves no name, and its rest goes with the next writer."""
    path = tmp_path / "core"
    with subprocess.Popen(
        [sys.executable, "-c", _WRITE_AND_WAIT, path], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        (partial,) = os.listdir(tmp_path)
        assert partial.startswith(".core.partial-")
        # A second writer leaves the first one's file alone while it lives.
        with PartialFile(path) as output:
            output.write(b"other")
        assert sorted(os.listdir(tmp_path)) == [partial, "core"]
        process.kill()
    path.unlink()
    assert os.listdir(tmp_path) == [partial]
    with PartialFile(path) as output:
        output.write(b"whole")
    assert os.listdir(tmp_path) == ["core"]


def test_long_name(tmp_path: Path) -> None:
    name = "ä" * 127  # 254 bytes; a file system has 255.
    with PartialFile(tmp_path / name) as output:
        output.write(b"data")
    assert os.listdir(tmp_path) == [name]


def test_no_more_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a service may have a few tasks only: the disk then writes at the end."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with PartialFile(tmp_path / "core") as output:
        output.write(bytes(8 << 20))
    assert (tmp_path / "core").stat().st_size == 8 << 20
