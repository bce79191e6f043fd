# SPDX-License-Identifier: GPL-2.0-or-later
"""What is checked without a VM."""

import json
import socket
from pathlib import Path

import pytest

from kmemdump.checks.disk import check_disk
from kmemdump.checks.names import find_targets
from kmemdump.checks.point import Check, Rehearsal, missing, ok, warning
from kmemdump.checks.qemu_machine import Actions, parse_actions
from kmemdump.checks.wanted import Wanted
from kmemdump.cli import main
from kmemdump.errors import UsageError
from kmemdump.marking.selection import select
from rigs.programs import run_kmemdump


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-m 1G", Actions()),
        ("-action panic=pause", Actions(panic="pause")),
        ("--action panic=none,reboot=shutdown", Actions("none", "shutdown")),
        (
            "-action panic=pause -action shutdown=pause",
            Actions("pause", "reset", "pause"),
        ),
        ("-no-reboot -no-shutdown", Actions("shutdown", "shutdown", "pause")),
        ("-name action -action", Actions()),
        ("-action watchdog=reset,panic", Actions(panic="")),
    ],
)
def test_actions(line, expected):
    assert parse_actions(line.split()) == expected


@pytest.mark.parametrize(
    ("actions", "kept"),
    [
        (Actions(), False),
        (Actions(panic="pause"), True),
        (Actions(panic="none"), True),
        (Actions(panic="exit-failure", shutdown="pause"), False),
        (Actions(panic="shutdown", shutdown="pause"), True),
    ],
)
def test_what_keeps_a_panicked_vm(actions, kept):
    assert actions.keeps_panicked is kept


@pytest.fixture
def sockets(tmp_path):
    """Two of them in a folder, with a file."""
    opened = []
    for name in ("web1.qmp", "db.qmp"):
        item = socket.socket(socket.AF_UNIX)
        item.bind(str(tmp_path / name))
        opened.append(item)
    (tmp_path / "notes").write_text("")
    yield tmp_path
    for item in opened:
        item.close()


def test_targets(sockets):
    both = [f"qmp:{sockets}/db.qmp", f"qmp:{sockets}/web1.qmp"]
    assert find_targets([]) == ["live"]
    assert find_targets(["live", str(sockets)]) == ["live", *both]
    assert find_targets([str(sockets / "db.qmp"), str(sockets)]) == both
    assert find_targets([f"{sockets}/w*.qmp"]) == both[1:]
    assert find_targets([str(sockets)], names=["d*"]) == both[:1]
    gone = str(sockets / "nosuch")
    assert find_targets([gone, f"qmp:{gone}2"]) == [f"qmp:{gone}", f"qmp:{gone}2"]
    notes = sockets / "my notes"
    notes.write_text("")
    with pytest.raises(UsageError, match=f"this says .*: kmemdump info '{notes}'$"):
        find_targets([str(notes)])
    with pytest.raises(UsageError, match="--metadata is of libvirt's domains"):
        find_targets([], metadata=["title=x"])


def test_a_folder_without_sockets(tmp_path, capsys):
    assert main(["check", str(tmp_path)]) == 3
    assert f"{tmp_path}: no VM is there" in capsys.readouterr().err


def test_the_worst_point_counts():
    points = (ok("a", ""), warning("b", ""), missing("c", ""))
    assert [Check("x", points[:count]).state for count in (0, 1, 2, 3)] == [
        *("ok", "ok", "warning", "missing")
    ]
    assert Check("x", error="gone").state == "missing"


def wanted(folder: Path | None, deaths: int = 1) -> Wanted:
    return Wanted(select(), folder, deaths)


def test_disk(tmp_path):
    core = Rehearsal(1000, 0.1, 0.1)
    assert check_disk(wanted(None), core).state == "warning"
    assert check_disk(wanted(tmp_path), core).state == "ok"
    new = tmp_path / "not" / "there" / "yet"
    assert check_disk(wanted(new), core).state == "ok"
    assert not new.parent.exists()
    assert check_disk(wanted(new, 1 << 60), core).state == "missing"
    file = tmp_path / "file"
    file.write_text("")
    assert "is not a folder" in check_disk(wanted(file), core).text


@pytest.mark.slow
def test_an_unreadable_target(tmp_path):
    done = run_kmemdump("check", "--json", f"qmp:{tmp_path}/nosuch")
    assert done.returncode == 3
    (target,) = json.loads(done.stdout)["targets"]
    assert "cannot connect: No such file" in target["error"]
    assert target["state"] == "missing"
    done = run_kmemdump("check", f"qmp:{tmp_path}/nosuch", f"qmp:{tmp_path}/other")
    assert done.returncode == 3
    assert done.stdout.count("cannot connect") == 2
