# SPDX-License-Identifier: GPL-2.0-or-later
"""What ramoops kept, wherever its RAM has come to."""

from pathlib import Path

import pytest

from kmemdump.cli import main
from kmemdump.firmware.ramoops_search import read_ramoops
from rigs.machine import FakeMachine
from rigs.phone import Phone, Row
from rigs.writers.ramoops import write_ramoops

AREA = 0x80350000


@pytest.mark.parametrize("parity", [0, 16])
def test_found_in_memory(parity: int) -> None:
    machine = FakeMachine()
    machine.put(AREA, write_ramoops(parity))
    machine.put(AREA + 0x8000, b"DBGC" + b"\xff" * 20)  # No zone.
    found = read_ramoops(machine, "machine")
    assert [(it.address, it.problems) for it in found.zones] == [
        (AREA, ()),
        (AREA + 8192, ()),
    ]
    assert found.zones[0].text.startswith("Panic#1 Part1\n<0>")
    assert found.zones[0].seconds == 1700000000.25
    assert found.zones[1].text == "the first words\nthe last words\n"
    assert found.zones[1].seconds is None


def test_errors_are_corrected_and_told() -> None:
    data = bytearray(write_ramoops(16))
    data[40:46] = b"XXXXXX"
    data[8192 + 12 : 8192 + 32] = bytes(20)
    machine = FakeMachine()
    machine.put(AREA, bytes(data))
    first, second = read_ramoops(machine, "machine").zones
    assert "Panic#1" in first.text
    assert first.problems == ("6 wrong bytes are corrected",)
    assert second.problems == ("1 blocks of 128 bytes are damaged",)


def test_ask_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One of the regions that firmware dumped was the RAM of ramoops."""
    phone = Phone.with_log()
    phone.rows.append(Row("Kramoops", 60, AREA, write_ramoops(16)))
    folder = phone.folder(tmp_path / "dump")
    assert main(["ask", str(folder), "ramoops"]) == 0
    captured = capsys.readouterr()
    assert captured.out == (
        "== ramoops zone at 0x80350000, 2023-11-14 22:13:20 UTC\n"
        "Panic#1 Part1\n<0>[    1.5] Kernel panic\n"
        "== ramoops zone at 0x80352000\nthe first words\nthe last words\n"
    )
    core = tmp_path / "core"
    assert main(["collect", str(folder), "-o", str(core)]) == 0
    capsys.readouterr()
    assert main(["ask", str(core), "ramoops"]) == 0
    assert capsys.readouterr().out == captured.out


def test_ask_a_file_of_that_ram(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ramoops.bin"
    path.write_bytes(write_ramoops())
    assert main(["ask", str(path), "ramoops"]) == 0
    assert "Kernel panic" in capsys.readouterr().out
    assert main(["ask", str(path), "ramoops", "log"]) == 2
    assert "cannot be combined with other questions" in capsys.readouterr().err
    path.write_bytes(bytes(4096))
    assert main(["ask", str(path), "ramoops"]) == 3
    assert "no VMCOREINFO found" in capsys.readouterr().err
    folder = Phone.with_log().folder(tmp_path / "dump")
    assert main(["ask", str(folder), "ramoops"]) == 1
    assert "no ramoops zone is in use" in capsys.readouterr().err


def test_nothing_to_correct_with(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys

    from kmemdump.formats import ramoops_ecc

    monkeypatch.setitem(sys.modules, "reedsolo", None)
    ramoops_ecc._codec.cache_clear()
    path = tmp_path / "ramoops.bin"
    path.write_bytes(write_ramoops(16))
    assert main(["ask", str(path), "ramoops"]) == 1
    captured = capsys.readouterr()
    assert "Kernel panic" in captured.out
    assert "reedsolo is not there; install it" in captured.err
