# SPDX-License-Identifier: GPL-2.0-or-later
"""Writers of sealed core images that are killed, at any moment, leave no plain text."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from kmemdump.core import open_core
from kmemdump.coreimage import (
    CoreContents,
    KernelRecord,
    Manifest,
    write_core,
)
from kmemdump.errors import OutputError
from kmemdump.firmware_dumps.folder import INFO_NAME, info_line
from kmemdump.memory.physical import PageMemory
from kmemdump.memory.ranges import Region
from kmemdump.sealing import make_seal
from rigs.full_disk import fill, mounted_image, mounted_tmpfs, needs_root
from rigs.keys import age_key
from rigs.small_core import TIME

pytestmark = pytest.mark.slow

PLANTED = b"planted-secret-0123456789"
PAGES = 512
KILLS = 100


def contents() -> CoreContents:
    """Return 2 MiB of memory that have the planted text in each page."""
    pages = {i: (PLANTED + b"%d" % i).ljust(64, b"x") * 64 for i in range(PAGES)}
    manifest = Manifest("kmemdump", TIME, KernelRecord("6.1.0", None, 62))
    region = Region(1, "r", 0, PAGES * 4096)
    return CoreContents(62, PageMemory(pages), [region], manifest)


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def check(folder: Path) -> None:
    for path in files_of(folder):
        assert PLANTED not in path.read_bytes(), path


def started(work: Callable[[], object]) -> int:
    """Start a process that works without end; return once it has begun."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, b"!")
            while True:
                work()
        finally:
            os._exit(1)
    os.close(write)
    os.read(read, 1)
    os.close(read)
    return pid


def kill_writers(folder: Path, path: Path, key_file: Path, work, kills: int) -> int:
    """Kill writers in all phases; return how many left a partial file."""
    partial = 0
    chance = random.Random(1)
    for _ in range(kills):
        pid = started(work)
        time.sleep(chance.random() * 0.03)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
        check(folder)
        partial += any(".partial-" in it.name for it in files_of(folder))
        if path.exists():  # What has the name is whole.
            with open_core(path, identity=key_file) as core:
                assert core.verify() == []
                assert core.target.memory.read(0, 4096).startswith(PLANTED)
    return partial


def test_killed_at_any_moment(tmp_path):
    key = age_key(tmp_path)
    seal, image, path = make_seal([key.public]), contents(), tmp_path / "cores" / "core"
    path.parent.mkdir()
    partial = kill_writers(
        path.parent, path, key.file, lambda: write_core(path, image, seal), KILLS
    )
    assert partial > 10, "they were not killed while they wrote"
    write_core(path, image, seal)
    assert files_of(path.parent) == [path]


def test_the_test_finds_what_is_not_sealed(tmp_path):
    write_core(tmp_path / "core", contents())
    with pytest.raises(AssertionError):
        check(tmp_path)


@needs_root
def test_each_byte_of_the_file_system(tmp_path):
    """Also what was deleted, and what the journal has."""
    key = age_key(tmp_path)
    seal, image = make_seal([key.public]), contents()
    with mounted_image(tmp_path, 64 << 20) as (disk, raw):
        path = disk / "core"
        kill_writers(disk, path, key.file, lambda: write_core(path, image, seal), 20)
        path.unlink(missing_ok=True)  # No writer may have come to its end.
        os.sync()
        assert PLANTED not in raw.read_bytes()
        write_core(disk / "plain", image)  # Or the search would prove nothing.
        os.sync()
        assert PLANTED in raw.read_bytes()


@needs_root
def test_full_disk(tmp_path):
    key = age_key(tmp_path)
    seal, image = make_seal([key.public]), contents()
    with mounted_tmpfs(tmp_path, 8 << 20) as disk:
        for leave in range(0, 3 << 20, 300 << 10):
            ballast = fill(disk, leave)
            enough = leave > 2 << 20
            with nullcontext() if enough else pytest.raises(OutputError, match="space"):
                write_core(disk / "core", image, seal)
            check(disk)
            ballast.unlink()
            (disk / "core").unlink(missing_ok=True)
            assert files_of(disk) == []


@pytest.mark.matrix
def test_the_verb_is_killed(tmp_path):
    """With all folders that it could write to."""
    key = age_key(tmp_path)
    dump, places = tmp_path / "dump", tmp_path / "places"
    dump.mkdir()
    lines = []
    for i in range(20):
        (dump / f"md_r{i}.BIN").write_bytes((PLANTED * 164)[:4096] * 64)
        lines.append(info_line(f"md_r{i}.BIN", 0x80000000 + i * 0x100000, 4096 * 64))
    (dump / INFO_NAME).write_text("".join(lines))
    for name in ("out", "tmp", "cache", "run"):
        (places / name).mkdir(parents=True)
    environ = {
        **os.environ,
        "TMPDIR": str(places / "tmp"),
        "XDG_CACHE_HOME": str(places / "cache"),
        "XDG_RUNTIME_DIR": str(places / "run"),
        "RUNTIME_DIRECTORY": str(places / "run"),
    }
    command = [sys.executable, "-m", "kmemdump", "collect", str(dump)]
    command += ["-o", str(places / "out" / "core"), "--seal", key.public]
    begun = time.monotonic()
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    taken = time.monotonic() - begun
    assert "Traceback" not in done.stderr
    assert (places / "out" / "core").exists(), done.stderr
    chance = random.Random(2)
    for _ in range(KILLS):
        process = subprocess.Popen(
            command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        time.sleep(taken * (0.5 + chance.random() / 2))
        process.kill()
        _, said = process.communicate()
        assert b"Traceback" not in said
        check(places)
