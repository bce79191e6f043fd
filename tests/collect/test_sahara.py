# SPDX-License-Identifier: GPL-2.0-or-later
"""A device that speaks Sahara over a socket."""

import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from kmemdump.collect.device import read_device
from kmemdump.collect.sahara import SocketConnection
from kmemdump.errors import FormatError, KmemdumpError, OutputError, TargetError
from kmemdump.firmware_dumps.folder import collect_folder
from kmemdump.firmware_dumps.target import DumpTarget
from kmemdump.formats.sahara import DeviceRow, name_row
from kmemdump.formats.sahara_device import Device
from kmemdump.kernel.attach import attach
from kmemdump.questions.crash_commands import command
from kmemdump.questions.question import answer
from rigs.full_disk import fill, mounted_tmpfs, needs_root
from rigs.phone import LOG, Phone
from rigs.sahara_device import Serve, fetch, reader, rows_of, serving


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    with serving(tmp_path) as serve:
        yield serve


@pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, socket.SOCK_STREAM])
@pytest.mark.parametrize("wide", [True, False])
def test_download(tmp_path: Path, serve: Serve, wide: bool, kind: int) -> None:
    phone = Phone.with_log()
    path = serve(Device(rows_of(phone), reader(phone), wide=wide), kind)
    told: list[tuple[str, int, int]] = []
    saved = fetch(path, tmp_path / "dump", progress=lambda *step: told.append(step))
    assert [row.file_name for row in saved.rows] == [
        row.file_name for row in rows_of(phone)
    ]
    # Two of one name don't overwrite each other.
    assert saved.files.count("md_Kprintk_r.BIN") == 1
    assert "md_Kprintk_r~2.BIN" in saved.files
    assert saved.problems == ("'md_Kprintk_r.BIN' is saved as md_Kprintk_r~2.BIN",)
    assert told[0][0] == "md_KELF.BIN"
    assert {step[0] for step in told} == set(saved.files)
    collected = collect_folder(tmp_path / "dump")
    assert collected.problems == ()
    assert collected.missing == ()
    target = DumpTarget(collected)
    assert answer(attach(target).prog, command("log")) == LOG
    assert (tmp_path / "dump").stat().st_mode & 0o777 == 0o700


def test_only_what_is_wanted(tmp_path: Path, serve: Serve) -> None:
    phone = Phone.with_log()

    def wanted(rows: Sequence[DeviceRow]) -> list[DeviceRow]:
        return [row for row in rows if row.file_name != "md_Klinux_ba.BIN"]

    path = serve(Device(rows_of(phone), reader(phone)))
    fetch(path, tmp_path / "dump", wanted=wanted)
    collected = collect_folder(tmp_path / "dump")
    assert [it.range.size for it in collected.missing] == [24]


def test_device_that_hangs_up(tmp_path: Path, serve: Serve) -> None:
    phone = Phone.with_log()
    path = serve(Device(rows_of(phone), reader(phone)), limit=12000)
    with pytest.raises(TargetError, match="the device has closed the connection"):
        fetch(path, tmp_path / "dump")
    # What has come is there, and what has not is named.
    collected = collect_folder(tmp_path / "dump")
    assert {"Kprb", "Klinux_ba"} <= {it.name for it in collected.missing}


def test_device_that_does_not_give_all(tmp_path: Path, serve: Serve) -> None:
    phone = Phone.with_log()
    rows = [*rows_of(phone), name_row("Kgone", 0x2000000, 100)]
    path = serve(Device(rows, reader(phone)))
    saved = fetch(path, tmp_path / "dump")
    assert saved.problems[-1] == (
        "md_Kgone.BIN: the device gave 0 of 100 bytes: "
        "status 0x19 (invalid memory read)"
    )
    collected = collect_folder(tmp_path / "dump")
    assert [it.name for it in collected.missing] == ["Kgone"]


@pytest.mark.parametrize(
    ("name", "saved_as"),
    [
        ("../../etc/x", "_.._etc_x"),
        ("", "1000.BIN"),
        ("...", "1000.BIN"),
        ("dump_info.txt", "dump_info~2.txt"),
        ("a\\b\n c", "a_b__c"),
    ],
)
def test_names_stay_in_the_folder(
    tmp_path: Path, serve: Serve, name: str, saved_as: str
) -> None:
    device = Device([DeviceRow(1, 0x1000, 4, "x", name)], lambda _, size: bytes(size))
    folder = tmp_path / "dump"
    saved = fetch(serve(device), folder)
    assert saved.files == (saved_as,)
    assert sorted(it.name for it in folder.iterdir()) == sorted(
        [saved_as, "dump_info.txt"]
    )


def test_refused(tmp_path: Path, serve: Serve) -> None:
    huge = Device(
        [DeviceRow(1, 0, 65 << 30, "x", "x.BIN")], lambda _, size: bytes(size)
    )
    with pytest.raises(FormatError, match="bytes in all, expected at most"):
        fetch(serve(huge), tmp_path / "dump")
    with pytest.raises(KmemdumpError, match="is not empty"):
        fetch(serve(huge), tmp_path)
    with pytest.raises(TargetError, match="none"):
        SocketConnection(tmp_path / "none")


@needs_root
def test_too_little_room(tmp_path: Path, serve: Serve) -> None:
    """Nothing is asked for that cannot be kept; the device keeps its memory."""
    phone = Phone.with_log()
    device = Device(rows_of(phone), reader(phone))
    with mounted_tmpfs(tmp_path, 16 << 10) as disk:
        path = serve(device)
        with pytest.raises(OutputError, match=r"bytes are free, and the device gives"):
            fetch(path, disk / "dump")
        assert list((disk / "dump").iterdir()) == []
    assert not device.finished


@needs_root
def test_a_disk_that_becomes_full(tmp_path: Path, serve: Serve) -> None:
    """What came before is used, and the device is not reset."""
    phone = Phone.with_log()
    device = Device(rows_of(phone), reader(phone))
    with mounted_tmpfs(tmp_path, 4 << 20) as disk:
        path = serve(device)

        def take(name: str, done: int, size: int) -> None:
            if name == "md_Kprb.BIN" and not (disk / "ballast").exists():
                fill(disk)

        (line,) = read_device(f"sahara:{path}", disk / "dump", progress=take)
        expected = f"cannot write into {disk}/dump: No space left on device; what it"
        assert line.startswith(expected)
        assert (disk / "dump/md_KELF.BIN").stat().st_size > 0
    assert not device.finished
