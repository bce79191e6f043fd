# SPDX-License-Identifier: GPL-2.0-or-later
"""The verbs ``collect`` and ``regions``, and asking what firmware left."""

import ast
import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import usb.core

from kmemdump.cli import main
from kmemdump.formats.sahara_device import Device
from rigs.machine import FOREIGN, SMEM, FakeMachine
from rigs.phone import LOG, MESSAGES, Phone, Row
from rigs.sahara_device import reader, rows_of, talk
from rigs.simulated_usb import Bus, SimulatedUsb
from rigs.writers import put


def ram_image(path: Path, machine: FakeMachine) -> list[str]:
    """Write a RAM image; return the options that tell its memory map."""
    path.write_bytes(machine.data)
    return [str(path), "--memory-map", f"{SMEM.start:#x}"]


def with_note(phone: Phone) -> FakeMachine:
    """Return its memory, with the note by which its kernel is found."""
    machine = phone.machine()
    note = b"\x0b\0\0\0" + len(phone.info.data).to_bytes(4, "little") + bytes(4)
    machine.put(0x80330000, note + b"VMCOREINFO\0\0" + phone.info.data)
    return machine


def test_ask_a_folder(tmp_path, capsys):
    folder = Phone.with_log(wrapped=True).folder(tmp_path / "dump")
    assert main(["ask", str(folder), "log"]) == 0
    assert capsys.readouterr() == (LOG, "")


def test_collect_a_folder(tmp_path, capsys):
    folder = Phone.with_log().folder(tmp_path / "dump", listed=True)
    core = tmp_path / "core"
    assert main(["collect", str(folder), "-o", str(core)]) == 0
    assert "core: 11 regions" in capsys.readouterr().out
    assert main(["ask", str(core), "log"]) == 0
    assert capsys.readouterr().out == LOG


def test_what_is_missing_is_named(tmp_path, capsys):
    folder = Phone.with_log().folder(tmp_path / "dump", listed=True)
    (folder / "md_Klinux_ba11.BIN").unlink()
    core = tmp_path / "core"
    assert main(["collect", str(folder), "-o", str(core)]) == 1
    error = capsys.readouterr().err
    assert "Klinux_ba11 is missing: 0x80284100-0x80284118" in error
    assert main(["ask", str(core), "log"]) == 0
    assert capsys.readouterr().out == LOG


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    ("file", "size", "left"),
    [
        # Of 8 each; the records are 5, 6, 7 and, in the first place, 8.
        (("__log_bu25", "new_log_46"), 63, [0, 2]),
        (("prb_desc23", "new_desc44"), 24 * 6 + 23, [0, 3]),
        (("prb_info24", "new_info45"), 88 * 7, [0, 1, 3]),
    ],
)
def test_half_a_log(tmp_path, capsys, file, size, left, dynamic, listed):
    """What is left is printed, and what is missing is counted."""
    phone = Phone.with_log(dynamic=dynamic)
    folder = phone.folder(tmp_path / "dump", listed=listed)
    cut = folder / f"md_K{file[dynamic]}.BIN"
    cut.write_bytes(cut.read_bytes()[:size])
    core = tmp_path / "core"
    assert main(["collect", str(folder), "-o", str(core)]) == 1
    assert "is truncated" in capsys.readouterr().err
    for target in folder, core:
        assert main(["ask", str(target), "log"]) == 1
        out, error = capsys.readouterr()
        assert out == "".join(f"[    1.500000] {MESSAGES[i]}\n" for i in left)
        assert error.startswith(
            f"kmemdump: log: {4 - len(left)} of 4 records are missing"
        )
    assert main(["report", str(core), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert len(report["log"]) == len(left)
    assert "a part of the kernel log" in [it["what"] for it in report["missing"]]


@pytest.mark.parametrize("kept", [False, True])
def test_collect_from_a_device(tmp_path, capsys, kept):
    phone = Phone.with_log()
    device = Device(rows_of(phone), reader(phone))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "device"))
        listener.listen(1)

        def run() -> None:
            connection, _ = listener.accept()
            with connection:
                talk(device, connection, 1 << 30)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        core, folder = tmp_path / "core", tmp_path / "kept"
        keep = ["--keep-files", str(folder)] if kept else []
        source = f"sahara:{tmp_path / 'device'}"
        assert main(["collect", source, "-o", str(core), *keep]) == 0
        thread.join(10)
    assert "is saved as md_Kprintk_r~2.BIN" in capsys.readouterr().err
    assert main(["ask", str(core), "log"]) == 0
    assert capsys.readouterr().out == LOG
    assert sorted(it.name for it in tmp_path.iterdir()) == sorted(
        ["core", "device", *(["kept"] if kept else [])]
    )


def test_collect_from_a_ram_image(tmp_path, capsys):
    phone = Phone.with_log()
    image = ram_image(tmp_path / "ram", with_note(phone))
    core = tmp_path / "core"
    assert main(["collect", *image, "-o", str(core)]) == 0
    smem = ["--smem", f"{SMEM.start:#x}:{SMEM.size:#x}"]
    assert main(["collect", *image, "-o", str(core), *smem]) == 0
    capsys.readouterr()
    assert main(["ask", str(core), "log"]) == 0
    assert capsys.readouterr().out == LOG
    assert main(["regions", *image, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["version"], found["problems"]) == (1, [])
    assert found["regions"][2] == {
        "name": "Kjiffies_",
        "number": 10,
        "address": "0x80284208",
        "size": 8,
        "valid": True,
        "problems": [],
    }
    assert (found["kind"], found["ready"], found["encrypted"]) == (
        "minidump",
        True,
        False,
    )


def test_regions_of_a_dump(tmp_path, capsys):
    folder = Phone.with_log().folder(tmp_path / "dump", listed=True)
    (folder / "md_Klinux_ba11.BIN").unlink()
    assert main(["regions", str(folder)]) == 1
    captured = capsys.readouterr()
    (line,) = (it for it in captured.out.splitlines() if "Klinux_ba11" in it)
    assert line.split() == [
        "Klinux_ba11",
        "0x80284100",
        "24",
        "0xffff800080004100",
        "no",
    ]
    assert "in the list of files and not in the folder" in captured.err


@pytest.mark.parametrize(
    ("arguments", "status", "problem"),
    [
        (["--smem", "1"], 2, "--smem '1': expected ADDRESS:SIZE"),
        (["--smem", "0x10:-5"], 2, "expected ADDRESS:SIZE"),
        (["--keep-files", "x"], 2, "--keep-files and --only are for devices"),
    ],
)
def test_wrong_use(tmp_path, capsys, arguments, status, problem):
    folder = Phone.with_log().folder(tmp_path / "dump")
    core = tmp_path / "core"
    assert main(["collect", str(folder), "-o", str(core), *arguments]) == status
    assert problem in capsys.readouterr().err
    assert not core.exists()


def test_regions_that_firmware_refuses(tmp_path, capsys):
    phone = Phone.with_log()
    phone.rows += [
        Row("Kodd", 60, 0x80300000, bytes(8)),
        Row("Kover", 61, 0x80300004, bytes(8)),
    ]
    machine = phone.machine()
    note = b"\x0b\0\0\0" + len(phone.info.data).to_bytes(4, "little") + bytes(4)
    machine.put(0x80330000, note + b"VMCOREINFO\0\0" + phone.info.data)
    put(machine.data, FOREIGN - SMEM.start + 40 * (len(phone.table) - 2) + 32, 8, 7)
    image = ram_image(tmp_path / "ram", machine)
    assert main(["regions", *image]) == 1
    captured = capsys.readouterr()
    (line,) = (it for it in captured.out.splitlines() if "Kover" in it)
    assert line.split() == ["Kover", "61", "0x80300004", "8", "yes"]
    assert captured.err.splitlines() == [
        "kmemdump: row 11 (Kodd) has 7 bytes, no multiple of 4",
        "kmemdump: row 12 (Kover) overlaps row 11 (Kodd)",
    ]


class Plugged:
    """A device on USB, for whoever looks for one."""

    def __init__(self, monkeypatch, *devices):
        find, bus = usb.core.find, Bus(*devices)
        monkeypatch.setattr(
            usb.core, "find", lambda **them: find(**{**them, "backend": bus})
        )


def test_collect_over_usb(tmp_path, capsys, monkeypatch):
    phone = Phone.with_log()
    Plugged(monkeypatch, SimulatedUsb(Device(rows_of(phone), reader(phone))))
    core = tmp_path / "core"
    assert main(["collect", "usb:A1B2C3D4", "-o", str(core)]) == 0
    capsys.readouterr()
    assert main(["ask", str(core), "log"]) == 0
    assert capsys.readouterr().out == LOG
    assert list(tmp_path.iterdir()) == [core]


def test_only_some_files(tmp_path, capsys, monkeypatch):
    phone = Phone.with_log()
    Plugged(monkeypatch, SimulatedUsb(Device(rows_of(phone), reader(phone))))
    arguments = ["--only", "md_KELF*", "--only", "*Kvmc*", "--keep-files", "kept"]
    monkeypatch.chdir(tmp_path)
    assert main(["collect", "usb", "-o", "core", *arguments]) == 1
    assert {it.name for it in (tmp_path / "kept").iterdir()} == {
        "dump_info.txt",
        "md_KELF.BIN",
        "md_Kvmcorein.BIN",
    }
    assert "Kprb is missing" not in capsys.readouterr().out


def test_device_that_goes_away_loses_nothing(tmp_path, capsys, monkeypatch):
    phone = Phone.with_log()
    Plugged(
        monkeypatch, SimulatedUsb(Device(rows_of(phone), reader(phone)), limit=16300)
    )
    core = tmp_path / "core"
    assert main(["collect", "usb", "-o", str(core)]) == 1
    error = capsys.readouterr().err
    assert "No such device; what it gave before is used" in error
    assert " is missing: 0x8" in error
    (kept,) = (it for it in tmp_path.iterdir() if it.is_dir())
    assert f"what the device gave is kept in {kept}" in error
    assert (kept / "md_KELF.BIN").stat().st_size > 10000
    assert core.exists()


def test_folder_that_is_in_use(tmp_path, capsys, monkeypatch):
    """What is in there already is not what the device has given."""
    phone = Phone.with_log()
    folder = phone.folder(tmp_path / "dump")
    device = SimulatedUsb(Device(rows_of(phone), reader(phone)))
    for devices in ((), (device,)):
        Plugged(monkeypatch, *devices)
        core = tmp_path / "core"
        assert (
            main(["collect", "usb", "-o", str(core), "--keep-files", str(folder)]) == 3
        )
        assert "dump: is not empty" in capsys.readouterr().err
        assert not core.exists()
    assert not device.device.finished


def test_no_device_on_usb(tmp_path, capsys, monkeypatch):
    Plugged(monkeypatch)
    assert main(["collect", "usb", "-o", str(tmp_path / "core")]) == 3
    assert "no device in ramdump mode" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_no_device(tmp_path, capsys):
    assert main(["collect", "sahara:", "-o", str(tmp_path / "core")]) == 2
    assert "expected sahara:SOCKET" in capsys.readouterr().err
    core = tmp_path / "core"
    assert main(["collect", f"sahara:{tmp_path / 'none'}", "-o", str(core)]) == 3
    assert "No such file" in capsys.readouterr().err


def test_collecting_a_folder_loads_neither_drgn_nor_asyncio(tmp_path):
    folder = Phone.with_log().folder(tmp_path / "dump", listed=True)
    code = (
        "import sys; from kmemdump.cli import main; assert not main(sys.argv[1:]); "
        "print(list(sys.modules))"
    )
    argv = [sys.executable, "-c", code, "collect", str(folder), "-o", "core"]
    done = subprocess.run(
        argv, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    loaded = ast.literal_eval(done.stdout.splitlines()[-1])
    late = {"_drgn", "drgn", "rich", "qemu", "asyncio", "jinja2", "usb", "reedsolo"}
    assert not late & set(loaded)


def test_names_are_not_taken_for_orders(tmp_path, capsys):
    """A name is what the dead kernel wrote, or somebody who wants a terminal."""
    phone = Phone.with_log()
    phone.rows.append(Row("K\x1b[31m", 99, 0x80300000, b"data"))
    ram = ram_image(tmp_path / "ram", with_note(phone))
    dump = [str(phone.folder(tmp_path / "dump", ids=False))]
    for source in ram, dump:
        assert main(["regions", *source]) in (0, 1), capsys.readouterr()
        out, error = capsys.readouterr()
        assert r"K\x1b[31m" in out + error
        assert (out + error).replace("\n", "").isprintable()
