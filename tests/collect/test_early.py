# SPDX-License-Identifier: GPL-2.0-or-later
"""Files are copied into the core image before it is known what they are."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kmemdump.cli import main
from kmemdump.collect import early
from kmemdump.collect.early import EarlyCopy
from kmemdump.collect.write import finish_collected, write_collected
from kmemdump.coreimage import CoreImage, read_core, verify
from kmemdump.errors import KmemdumpError
from kmemdump.firmware_dumps.folder import collect_folder
from kmemdump.firmware_dumps.target import DumpTarget
from kmemdump.start import begin
from rigs.phone import Phone, Row, in_image

SMALL = 3000
LARGE = 70_000


def contents(size: int, seed: int) -> bytes:
    return bytes((seed + 7 * i + i // 251) % 256 for i in range(size))


def rows(size: int = LARGE) -> list[Row]:
    """Two neighbours, and one that is too small to matter."""
    return [
        Row("Kb", 10, data=contents(size, 1), **in_image(0x800000)),
        Row("Kc", 11, data=contents(1 << 17, 2), **in_image(0x1000000)),
        Row("Ka", 12, data=contents(135168, 3), **in_image(0x1020000)),
        Row("Ks", 13, data=contents(SMALL, 4), **in_image(0x1800000)),
    ]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    # Who runs the tests may have threads, but none that holds a lock that is wanted.
    monkeypatch.setattr(threading, "active_count", lambda: 1)


def collect(folder: Path, core: Path) -> tuple[CoreImage, bool]:
    """Return a core image, and whether files were copied into it early."""
    target = DumpTarget(collect_folder(folder))
    with EarlyCopy(str(folder), core) as copy:
        offsets = {offset for offset, _ in copy.places.values()}
        finish_collected(copy, target)
    target.close()
    image = read_core(core)
    assert verify(image) == []
    return image, bool(offsets) and offsets <= {it.offset for it in image.core.headers}


def check(folder: Path, tmp_path: Path) -> bool:
    """
    Compare with what is written in one go.

    :return: Whether files were copied early.
    """
    image, copied = collect(folder, tmp_path / "early")
    target = DumpTarget(collect_folder(folder))
    missing = write_collected(tmp_path / "late", target)
    target.close()
    with image, read_core(tmp_path / "late") as other:
        assert image.ranges == other.ranges
        for item in other.ranges:
            read = other.read(item.start, item.size)
            assert image.read(item.start, item.size) == read
        assert image.manifest.regions == other.manifest.regions
    assert missing == []
    assert [it.name for it in tmp_path.iterdir() if "partial" in it.name] == []
    return copied


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("downstream", [False, True])
def test_large_files_are_copied_early(
    tmp_path: Path, listed: bool, downstream: bool
) -> None:
    phone = Phone(rows(), downstream=downstream)
    assert check(phone.folder(tmp_path / "dump", listed=listed), tmp_path)


@pytest.mark.parametrize("padding", [1, 2, 3])
def test_padding_is_not_summed_up(tmp_path: Path, padding: int) -> None:
    phone = Phone(rows(LARGE + 4 - padding))
    assert check(phone.folder(tmp_path / "dump", listed=True), tmp_path)


def test_what_does_not_belong_is_not_in_the_file(tmp_path: Path) -> None:
    phone = Phone(rows())
    folder = phone.folder(tmp_path / "dump")
    (folder / "md_other.BIN").write_bytes(b"secret" * LARGE)
    assert not check(folder, tmp_path)
    assert b"secret" not in (tmp_path / "early").read_bytes()


def test_two_files_with_the_same_memory(tmp_path: Path) -> None:
    again = Row("Kd", 14, data=contents(1 << 17, 2)[: 1 << 16], **in_image(0x1000000))
    phone = Phone([*rows(), again])
    assert not check(phone.folder(tmp_path / "dump", listed=True), tmp_path)


@pytest.mark.parametrize("change", [-1, 1, -LARGE])
def test_file_that_is_not_as_long_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: int
) -> None:
    folder = Phone(rows()).folder(tmp_path / "dump", listed=True)
    listed = early.list_files

    def before(folder: str) -> dict[str, int]:
        sizes = listed(folder)
        return {**sizes, "md_Kb10.BIN": sizes["md_Kb10.BIN"] - change}

    monkeypatch.setattr(early, "list_files", before)
    assert not check(folder, tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    for source in (str(tmp_path / "none"), "usb", "sahara:/x", "a\0b"):
        with EarlyCopy(source, tmp_path / "core") as copy:
            assert copy.places == {}
    with pytest.raises(KmemdumpError, match="does not exist"):
        EarlyCopy(str(tmp_path), tmp_path / "none" / "core")


def test_process_with_threads_copies_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "active_count", lambda: 2)
    assert not check(Phone(rows()).folder(tmp_path / "dump"), tmp_path)


def children() -> set[str]:
    """Return the processes that this one has started, those that ended included."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_nothing_is_left_of_what_is_given_up(tmp_path: Path) -> None:
    folder = Phone(rows()).folder(tmp_path / "dump")

    def fail() -> None:
        with EarlyCopy(str(folder), tmp_path / "core"):
            raise KeyboardInterrupt

    before = children()
    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [it.name for it in tmp_path.iterdir()] == ["dump"]
    assert children() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["collect", "DUMP", "-o", "CORE"],
        ["collect", "DUMP", "--output", "CORE"],
        ["collect", "-o", "CORE", "DUMP"],
    ],
)
def test_plain_commands_begin_at_once(tmp_path: Path, arguments: list[str]) -> None:
    folder = Phone(rows()).folder(tmp_path / "dump")
    places = {"DUMP": str(folder), "CORE": str(tmp_path / "core")}
    begun = begin([places.get(item, item) for item in arguments])
    assert begun is not None
    assert (begun.source, begun.path) == (places["DUMP"], places["CORE"])
    assert len(begun.places) == 3
    begun.discard()
    assert not (tmp_path / "core").exists()


@pytest.mark.parametrize("core", ["core", "./core", ".//core"])
def test_verb_goes_on_with_what_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, core: str
) -> None:
    Phone(rows()).folder(tmp_path / "dump", listed=True)
    monkeypatch.chdir(tmp_path)
    arguments = ["collect", "./dump/", "-o", core]
    begun = begin(arguments)
    assert begun is not None
    assert main(arguments, begun=begun) == 0
    assert begun.output.closed
    with read_core("core") as image:
        assert verify(image) == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["info", "DUMP"],
        ["collect", "DUMP"],
        ["collect", "--json", "-o", "CORE"],
        ["collect", "DUMP", "-o", "--help"],
        ["collect", "DUMP", "-o", "CORE", "--json"],
        ["collect", "DUMP", "-o", "/none/core"],
    ],
)
def test_others_do_not(arguments: list[str]) -> None:
    assert begin(arguments) is None


def program(
    *arguments: str | Path, folder: Path, shell: str = '"$@"'
) -> subprocess.CompletedProcess[str]:
    argv = ["sh", "-c", shell, "sh", sys.executable, "-m", "kmemdump"]
    argv += map(str, arguments)
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ["dump", "-o", "core"],
        ["./dump/", "-o", "./core"],
        ["-o", "core", "dump"],
        ["dump", "-o", "core", "--json"],
    ],
)
def test_the_program(tmp_path: Path, arguments: list[str]) -> None:
    Phone(rows()).folder(tmp_path / "dump", listed=True)
    done = program("collect", *arguments, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    with read_core(tmp_path / "core") as image:
        assert verify(image) == []
        assert image.extents[-1].offset > 64 << 10
    assert {it.name for it in tmp_path.iterdir()} == {"core", "dump"}


def test_the_program_without_a_dump(tmp_path: Path) -> None:
    done = program("collect", "none", "-o", "core", folder=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert "none: No such file" in done.stderr
    done = program("collect", "none", "-o", "none/core", folder=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert "folder" in done.stderr
    assert "does not exist" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_program_without_a_terminal(tmp_path: Path) -> None:
    """Files do not get the numbers of streams that are closed."""
    Phone(rows()).folder(tmp_path / "dump", listed=True)
    shell = '"$@" >&- 2>&-'
    done = program("collect", "dump", "-o", "core", folder=tmp_path, shell=shell)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with read_core(tmp_path / "core") as image:
        assert verify(image) == []
    done = program("collect", "none", "-o", "core", folder=tmp_path, shell=shell)
    assert done.returncode == 3


def test_what_begins_at_once_needs_little() -> None:
    """What takes 10 ms to load would be a tenth of the time that copying takes."""
    code = (
        f"import sys; sys.path[:] = {sys.path}\n"
        "import kmemdump.start, kmemdump.collect.early\n"
        "print({'typing', 'pathlib', 'logging', 'click', 're'} & set(sys.modules))"
    )
    # Without site, which loads some of them itself in some environments.
    argv = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
