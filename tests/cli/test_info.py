# SPDX-License-Identifier: GPL-2.0-or-later
"""The verb ``info``."""

import json
import shlex
import struct
import subprocess
import sys

import pytest

from kmemdump.cli import main
from kmemdump.opening import open_target
from kmemdump.report.inspect import read_manifest, shorten
from rigs.small_core import BUILD_ID, PAGE, VMCOREINFO, write


def info(path, capsys, *arguments):
    status = main(["info", str(path), *arguments])
    return status, *capsys.readouterr()


def test_text(tmp_path, capsys):
    path = write(tmp_path / "a core")
    status, out, err = info(path, capsys)
    assert (status, err) == (0, "")
    for words in (
        "Kernel:     6.1.0-test, x86_64",
        f"Build id:   {BUILD_ID}",
        "Written by: kmemdump 0.1.0, regions held by vm",
        "Captured:   2025-04-22 11:31:05 UTC, ",
        "Marked:     1 min 15 s before it was captured",
        f"Size:       {path.stat().st_size:,} bytes",
        "Memory:     12,288 bytes in 2 ranges",
        "Regions:    2, 12,288 bytes",
        "Registers:  of 2 CPUs",
        "Because:    frozen: CPU 1 served no interrupt for 10 s",
        "Answers:    none:",  # And the path, in the next line if it is long.
        "Checksums:  all regions are as they were written",
        "kmsg              8,192  yes",
    ):
        assert words in out, words
    lines = [shlex.split(line) for line in out.splitlines() if "a core" in line]
    name = str(path)
    assert ["drgn", "-c", name] in lines
    assert ["crash", "VMLINUX", name] in lines
    symbols = "symbol-file -o 0x13c00000 VMLINUX"
    assert ["gdb", "-c", name, "-ex", symbols] in lines
    assert "answers" not in out
    _, out, _ = info(path, capsys, "-v")
    assert "answers log (not tried)" in out
    assert f"{'kmsg@1000':<32} {'0x1000':>14} {'8,192':>10}" in out


def test_json(tmp_path, capsys):
    status, out, _ = info(write(tmp_path / "core"), capsys, "--json")
    plain = json.loads(out)
    assert status == 0
    assert plain["version"] == 1
    assert plain["release"] == "6.1.0-test"
    assert plain["kernel_offset"] == "0x13c00000"
    assert plain["captured"] == "2025-04-22T11:31:05+00:00"
    assert [area["name"] for area in plain["areas"]] == ["kmsg", "crash"]
    assert len(plain["regions"]) == 2
    assert plain["tried"] == []
    assert "unanswerable" in plain
    assert plain["problems"] == []
    needs = {item["name"]: item["needs_vmlinux"] for item in plain["debuggers"]}
    assert needs == {"kmemdump": False, "drgn": False, "crash": True, "gdb": True}


def test_incomplete_area(tmp_path, capsys):
    path = write(tmp_path / "core", reason="more than 30 s", marked=False, packed=False)
    status, out, err = info(path, capsys, "-v")
    assert (status, err) == (1, "")
    assert "no: more than 30 s" in out
    assert "lacks   log (not tried): more than 30 s" in out
    assert "when it was captured, not before" in out
    assert f"drgn -c {path} -s VMLINUX" in out
    assert "area crash is not complete" in out


def test_without_area_crash(tmp_path, capsys):
    _, out, _ = info(write(tmp_path / "core", areas=("kmsg",)), capsys)
    assert "area crash was not marked" in out


@pytest.mark.parametrize(
    ("release", "said"),
    [
        ("6.0.0-test", None),
        ("6.12.0-test", "8.0.2 is too old for this kernel, 8.0.6 is not"),
        ("6.1.0-test", "8.0.2 finds only running tasks of this kernel, in whole"),
        ("7.0-rc1", "8.0.6 is too old for this kernel, 9.0.2 opens it if no module"),
    ],
)
def test_kernel_that_an_old_crash_does_not_open(tmp_path, capsys, release, said):
    _, out, _ = info(write(tmp_path / "core", release=release), capsys)
    out = " ".join(out.split())
    assert said in out if said else "8.0" not in out


def test_checksum(tmp_path, capsys):
    path = write(tmp_path / "core", packed=False)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    status, out, err = info(path, capsys)
    assert status == 1
    assert "Damaged:    region crash@5000: has checksum" in out
    assert err.startswith(f"kmemdump: {path}: region crash@5000: has checksum")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("missing", [1, 100, PAGE, 2 * PAGE + 1])
def test_truncated(tmp_path, capsys, missing):
    path = write(tmp_path / "core")
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-missing])
    status, out, err = info(path, capsys)
    assert (status, out) == (3, "")
    assert len(err.splitlines()) == 1
    assert f"truncated: {size - missing} bytes, expected {size}" in err
    assert f"{missing} are missing" in err


def test_rest_of_a_truncated_file(tmp_path, capsys):
    path = write(tmp_path / "core", packed=False)
    path.write_bytes(path.read_bytes()[:-PAGE])
    status, out, err = info(path, capsys, "--damaged")
    assert status == 1
    assert f"truncated: the file ends at {path.stat().st_size:#x}, {PAGE} bytes" in err
    assert "region crash@5000: has 0 bytes in the file, expected 4096" in err
    assert "Kernel:     6.1.0-test" in out


def test_every_prefix_is_refused(tmp_path, capsys):
    whole = write(tmp_path / "core").read_bytes()
    path = tmp_path / "prefix"
    for size in range(0, len(whole), 61):
        path.write_bytes(whole[:size])
        status, out, err = info(path, capsys)
        assert (status, out) == (3, "")
        assert "Traceback" not in err


def test_foreign_core(tmp_path, capsys):
    # An ELF core of another program, with no virtual addresses.
    note = struct.pack("<III", 11, len(VMCOREINFO), 0) + b"VMCOREINFO\0\0"
    note += VMCOREINFO.encode() + bytes(-len(VMCOREINFO) % 4)
    header = b"\x7fELF\2\1\1".ljust(16, b"\0")
    header += struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    at = 64 + 2 * 56
    header += struct.pack("<IIQQQQQQ", 4, 0, at, 0, 0, len(note), len(note), 4)
    memory = at + len(note)
    header += struct.pack("<IIQQQQQQ", 1, 7, memory, 0, PAGE, PAGE, PAGE, 0)
    path = tmp_path / "vmcore"
    path.write_bytes(header + note + bytes(PAGE))
    status, out, err = info(path, capsys)
    assert (status, err) == (0, "")
    assert "Kernel:     6.1.0-test, x86_64" in out
    assert "another program" in out
    assert "Registers:  none" in out
    assert f"crash VMLINUX {path}" in out
    assert "not gdb: the file lacks virtual addresses" in out


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"noise" * 5000])
def test_other_files(tmp_path, capsys, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    status, out, err = info(path, capsys)
    assert (status, out) == (3, "")
    assert err.startswith(f"kmemdump: error: {path}")


def test_many_problems_are_a_few_lines():
    assert shorten(["a"] * 5) == ["a"] * 5
    assert shorten(["a"] * 7) == ["a"] * 5 + ["and 2 more like these"]


def test_no_file(tmp_path, capsys):
    status, _, err = info(tmp_path / "nowhere", capsys)
    assert status == 3
    assert "No such file" in err


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["info", "report", "ask", "open"])
def test_the_file_is_opened_once(tmp_path, verb):
    path = write(tmp_path / "core")
    code = f"""
import sys
from kmemdump.cli import main

def count(event, arguments):
    if event == "open" and str(arguments[0]) == {str(path)!r}:
        print("opened", file=sys.stderr)

sys.addaudithook(count)
main([{verb!r}, {str(path)!r}, *{["--print"] if verb == "open" else []!r}])
"""
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, input="", check=False)
    # A report may be of a log: what it is, is seen by its first bytes.
    times = 2 if verb == "report" else 1
    assert done.stderr.splitlines().count("opened") == times, done.stderr


def test_broken_manifest(tmp_path, capsys):
    path = write(tmp_path / "core")
    path.write_bytes(path.read_bytes().replace(b'"backend":"vm"', b'"backend": 5  '))
    problem = f"{path}: note KMEMDUMP.backend: is 5, expected a string"
    status, out, err = info(path, capsys)
    assert (status, out, err) == (3, "", f"kmemdump: error: {problem}\n")
    target = open_target(str(path))
    assert read_manifest(target) == (None, [problem])
    target.close()
