# SPDX-License-Identifier: GPL-2.0-or-later
"""The verbs on sealed core images."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from kmemdump.cli import main
from kmemdump.firmware_dumps.folder import INFO_NAME, info_line
from kmemdump.sealing import make_seal
from rigs.keys import Key, age_key
from rigs.programs import KMEMDUMP, run_kmemdump
from rigs.small_core import write


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return age_key(tmp_path_factory.mktemp("key"))


@pytest.fixture
def core(tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("KMEMDUMP_IDENTITY", raising=False)
    return write(tmp_path / "core", seal=make_seal([key.public]))


def test_info_without_a_key(core, capsys):
    assert main(["info", str(core), "--json"]) == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["release"] == "6.1.0-test"
    assert found["captured"] == "2025-04-22T11:31:05+00:00"
    assert found["sealed"] is True
    assert found["signature"] is None
    assert err == f"kmemdump: {core}: is sealed; --identity FILE shows the rest\n"


def test_info_with_a_key(core, key, capsys):
    assert main(["info", str(core), "--identity", str(key.file)]) == 0
    out = capsys.readouterr().out
    assert "Checksums:  all regions are as they were written" in out
    assert f"kmemdump open --with crash {core}" in out


@pytest.mark.parametrize("verb", ["report", "ask", "open"])
def test_without_a_key(core, verb, capsys):
    assert main([verb, str(core)]) == 2
    assert "is sealed, and there is no key to open it" in capsys.readouterr().err


def test_the_key_in_the_environment(core, key, capsys, monkeypatch):
    monkeypatch.setenv("KMEMDUMP_IDENTITY", f"{key.file}:{key.file}")
    assert main(["info", str(core)]) == 0


def test_unseal(core, key, tmp_path, capsys):
    plain, again = write(tmp_path / "plain"), tmp_path / "again"
    command = ["unseal", str(core), "-o", str(again), "--identity", str(key.file)]
    assert main(command) == 0
    assert again.read_bytes() == plain.read_bytes()
    assert again.stat().st_mode & 0o777 == 0o600
    assert main(["unseal", str(plain), "-o", str(again)]) == 2
    assert "is not sealed" in capsys.readouterr().err


def test_unseal_leaves_nothing_of_a_damaged_one(core, key, tmp_path, capsys):
    core.write_bytes(core.read_bytes()[:-1])
    before = sorted(os.listdir(tmp_path))
    again = str(tmp_path / "again")
    assert main(["unseal", str(core), "-o", again, "--identity", str(key.file)]) == 3
    assert sorted(os.listdir(tmp_path)) == before


def test_open_cannot_print_a_command(core, key, capsys):
    assert main(["open", str(core), "--print", "--identity", str(key.file)]) == 2
    assert "'kmemdump unseal' it first" in capsys.readouterr().err


def planted(folder: Path) -> Path:
    """Return what firmware left: one region, with its address."""
    dump = folder / "dump"
    dump.mkdir()
    data = b"planted" * 600
    (dump / "md_one.BIN").write_bytes(data)
    (dump / INFO_NAME).write_text(info_line("md_one.BIN", 0x80000000, len(data)))
    return dump


def test_collect_and_read_again(tmp_path, key, capsys):
    dump, core = planted(tmp_path), tmp_path / "core"
    command = ["collect", str(dump), "-o", str(core), "--seal", key.public]
    assert main(command) in (0, 1)
    assert b"planted" not in core.read_bytes()
    assert core.read_bytes().startswith(b"kmemdump-sealed/1 ")
    assert main(command) in (0, 1)  # It may be replaced: it is ours.


def test_seal_in_a_configuration(tmp_path, key):
    dump, core, config = planted(tmp_path), tmp_path / "core", tmp_path / "config.toml"
    config.write_text(f'seal = ["{key.public}"]\n')
    command = ["collect", str(dump), "-o", str(core), "--config", str(config)]
    assert main(command) in (0, 1)
    assert core.read_bytes().startswith(b"kmemdump-sealed/1 ")


def test_what_does_not_go_together(tmp_path, key, capsys):
    command = [
        "collect",
        "usb",
        "-o",
        str(tmp_path / "core"),
        "--keep-files",
        str(tmp_path),
    ]
    assert main([*command, "--seal", key.public]) == 2
    assert "--keep-files would keep what --seal seals" in capsys.readouterr().err
    assert main(["watch", str(tmp_path), "-o", str(tmp_path), "--show-cause"]) == 2
    assert "--show-cause is for what is sealed" in capsys.readouterr().err


def test_catalogue(core, key, tmp_path, capsys):
    place = str(tmp_path / "deaths")
    assert main(["catalogue", "add", str(core), "--to", place, "--jobs", "1"]) == 1
    sql = "SELECT form, release, problem FROM deaths"
    capsys.readouterr()
    assert main(["catalogue", "sql", sql, "--from", place, "--json"]) == 0
    out = capsys.readouterr().out
    assert "6.1.0-test" in out
    assert "sealed: --identity FILE examines it" in out


def test_keys_from_a_pipe_are_there_for_each_child(core, key, tmp_path):
    """Each child reads the keys: a second one would find the pipe empty."""
    other = write(tmp_path / "other", seal=make_seal([key.public]))
    place = tmp_path / "deaths"
    add = ["catalogue", "add", core, other, "--to", place, "--jobs", "2"]
    subprocess.run(
        [*KMEMDUMP, *add, "--identity", "/dev/stdin"],
        input=key.file.read_bytes(),
        capture_output=True,
    )
    sql = "SELECT problem FROM deaths"
    done = run_kmemdump("catalogue", "sql", sql, "--from", place, "--json")
    assert done.stdout.count("problem") == 2, done.stdout + done.stderr
    assert done.stdout.count("VMCOREINFO: drgn refuses it") == 2  # What is in them.


def test_an_empty_pipe_of_keys(core):
    done = subprocess.run(
        [*KMEMDUMP, "report", core, "--identity", "/dev/stdin"],
        input="",
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (
        2,
        "kmemdump: error: /dev/stdin: gives nothing, expected keys\n",
    )
