# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel that is found by its kinfo, in a RAM image."""

import json
from pathlib import Path

import pytest

from kmemdump.cli import main
from kmemdump.errors import FormatError, NotCapturedError, TargetError
from kmemdump.firmware.kinfo_search import find_kinfo
from kmemdump.firmware_dumps.kinfo import collect_kinfo
from kmemdump.memory.ranges import Range
from rigs.kinfo_machine import WHERE, machine_with
from rigs.machine import SMEM, FakeMachine
from rigs.phone import IMAGE, LOG, PHYSICAL, vmcoreinfo
from rigs.writers import put
from rigs.writers.kinfo import IMAGE as ELSEWHERE
from rigs.writers.kinfo import LAYOUTS, write_kinfo


def ram_image(path: Path, machine: FakeMachine) -> list[str]:
    text = vmcoreinfo()
    note = b"\x0b\0\0\0" + len(text).to_bytes(4, "little") + bytes(4)
    machine.put(0x80330000, note + b"VMCOREINFO\0\0" + text)
    path.write_bytes(machine.data)
    return [str(path), "--memory-map", f"{SMEM.start:#x}"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_image_is_collected(layout: str) -> None:
    machine = machine_with(layout)
    assert find_kinfo(machine) == WHERE
    collected = collect_kinfo(machine, WHERE)
    assert [(it.name, it.range) for it in collected.regions] == [
        ("image", Range(PHYSICAL, 0x8000)),
        ("image", Range(PHYSICAL + 0x9000, 0x7000)),
        ("kinfo", Range(WHERE, 4096)),
    ]
    assert collected.problems == ()
    assert collected.memory.read(PHYSICAL, 0x8000) == machine.read(PHYSICAL, 0x8000)
    # Whoever found it would follow it to what is not there.
    with pytest.raises(NotCapturedError):
        collected.memory.read(PHYSICAL + 0x8000, 1)


def test_log_of_a_ram_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, core = ram_image(tmp_path / "ram", machine_with()), tmp_path / "core"
    assert main(["collect", *image, "-o", str(core)]) == 0
    assert main(["collect", *image, "-o", str(core), "--kinfo", hex(WHERE)]) == 0
    capsys.readouterr()
    assert main(["ask", str(core), "log"]) == 0
    assert capsys.readouterr().out == LOG
    assert main(["info", str(core)]) == 0
    assert "kinfo" in capsys.readouterr().out


def test_regions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = ram_image(tmp_path / "ram", machine_with("android-v2", _sinittext=0))
    assert main(["regions", *image, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["kinfo"] == hex(WHERE)
    assert found["layout"] == "android-v2"
    assert found["release"] == "6.12.9-android"
    assert found["problems"] == ["the kinfo lacks _sinittext"]
    rows = {row["name"]: row["address"] for row in found["regions"]}
    assert rows["_stext"] == hex(PHYSICAL)
    assert rows["kallsyms_addresses"] is None


def test_kernel_without_a_base(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Since v7.0; before, a kinfo without one lacks something."""
    for layout in ("series", "meminspect-v3", "android-v2"):
        for relative, problems in ((0, []), (1, ["the kinfo lacks "])):
            machine = machine_with(layout, relative, kallsyms_relative_base=0)
            image = ram_image(tmp_path / "ram", machine)
            assert main(["regions", *image, "--json"]) == len(problems)
            found = json.loads(capsys.readouterr().out)
            assert found["layout"] == layout
            assert [it[:16] for it in found["problems"]] == problems


def test_kinfo_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "kinfo"
    path.write_bytes(write_kinfo("series").ljust(4096, b"\0"))
    assert main(["regions", str(path)]) == 0
    assert f"{ELSEWHERE['_stext']:#x}" in capsys.readouterr().out
    assert main(["collect", str(path), "-o", str(tmp_path / "core")]) == 3
    error = capsys.readouterr().err
    assert "has addresses and no memory; 'kmemdump regions' lists them" in error


def test_torn_kinfo_is_told() -> None:
    machine = machine_with()
    put(machine.data, WHERE + 4 - SMEM.start, 4, 0)
    collected = collect_kinfo(machine, WHERE)
    assert "checksum is wrong" in collected.problems[0]
    assert collected.memory.read(PHYSICAL, 4) == machine.read(PHYSICAL, 4)


def test_refused() -> None:
    machine = machine_with()
    machine.put(WHERE + 4096, machine.read(WHERE, 4096))
    with pytest.raises(FormatError, match="2 kinfos, expected one: 0x80340000"):
        find_kinfo(machine)
    with pytest.raises(TargetError, match="no debug_kinfo"):
        find_kinfo(machine_with(_stext=0x70000000))  # Another machine's.
    for end in (0, PHYSICAL - 1, PHYSICAL + (1 << 30)):
        with pytest.raises(TargetError, match="expected at most 512 MiB"):
            collect_kinfo(machine_with(_end=end), WHERE)
    elsewhere = machine_with(_text=1 << 20, _stext=1 << 20, _end=2 << 20)
    with pytest.raises(TargetError, match="is not in the memory"):
        collect_kinfo(elsewhere, WHERE)
    with pytest.raises(NotCapturedError):
        collect_kinfo(machine, 0x1000)


def test_image_with_a_hole() -> None:
    machine = machine_with(_end=SMEM.start + 0x400000 + 0x1000)
    collected = collect_kinfo(machine, WHERE)
    assert [it.range for it in collected.missing] == [
        Range(SMEM.start + 0x400000, 0x1000)
    ]


def test_neither(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine = machine_with()
    machine.put(WHERE, bytes(8))
    image = ram_image(tmp_path / "ram", machine)
    assert main(["collect", *image, "-o", str(tmp_path / "core")]) == 3
    assert "no SMEM of version 12 found below 4 GiB, and no debug_kinfo" in (
        capsys.readouterr().err
    )
    assert main(["regions", *image, "--kinfo", "x"]) == 2
    assert "--kinfo 'x': expected ADDRESS" in capsys.readouterr().err


def test_virtual_names() -> None:
    """The image has its own addresses, without an ELF header that tells them."""
    from kmemdump.firmware_dumps.target import DumpTarget
    from kmemdump.vmcoreinfo import VmcoreInfo

    info = VmcoreInfo.parse(vmcoreinfo(), "phone")
    target = DumpTarget(collect_kinfo(machine_with(), WHERE), info)
    assert IMAGE in [alias.virtual for alias in target.aliases]
