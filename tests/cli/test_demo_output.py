# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``kmemdump demo`` leaves and prints, once the VM is dead."""

import os
import shlex
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from kmemdump.cli import main
from kmemdump.diagnosis.records import Cause, CauseKind
from kmemdump.lab.demo import DemoResult
from kmemdump.report.records import KernelIdentity, Times
from kmemdump.report.report import Report
from rigs.full_disk import fill, mounted_tmpfs, needs_root
from rigs.writers.kernel_image import write_x86

NOBODY = 65534
REPORT = Report(
    "core.elf",
    KernelIdentity("6.1.0-test"),
    Times(),
    Cause(CauseKind.PANIC, "Somebody made the kernel crash on purpose."),
)


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """``demo(folder)`` runs the verb, without a VM."""
    image = tmp_path / "vmlinuz"
    image.write_bytes(write_x86("6.1.0-test"))

    def run_demo(folder: Path, *_: object) -> DemoResult:
        (folder / "booted").touch()
        return DemoResult(folder / "core.elf", True, 0.1)

    core = SimpleNamespace(report=lambda all_stacks: REPORT)
    monkeypatch.setattr("kmemdump.lab.demo.run_demo", run_demo)
    monkeypatch.setattr("kmemdump.core.open_core", lambda path: nullcontext(core))
    command = ["demo", "--vmlinuz", str(image), "-o"]
    return lambda folder, *options: main([*command, str(folder), *options])


def test_leaves_what_only_its_owner_reads(demo, tmp_path):
    assert demo(tmp_path / "out") == 0
    report = tmp_path / "out/report.txt"
    assert report.read_text().startswith("Cause of death\n")
    assert report.stat().st_mode & 0o777 == 0o600


@needs_root
def test_follows_no_link_of_another_user(demo, tmp_path, capsys):
    victim, folder = tmp_path / "victim", tmp_path / "d"
    victim.write_text("precious")
    folder.mkdir()
    (folder / "report.txt").symlink_to(victim)
    for path in (folder, folder / "report.txt"):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    assert demo(folder) == 3
    assert "report.txt is a link of user 65534" in capsys.readouterr().err
    assert victim.read_text() == "precious"
    assert not (folder / "booted").exists()


def test_looks_first_whether_it_can_write(demo, tmp_path, capsys):
    folder = tmp_path / "out"
    (folder / "core.elf").mkdir(parents=True)
    assert demo(folder) == 3
    assert "core.elf: it is a folder" in capsys.readouterr().err
    assert os.listdir(folder) == ["core.elf"]


@pytest.mark.parametrize("name", ["core.elf", "report.txt"])
def test_replaces_nothing_that_it_did_not_write(demo, tmp_path, capsys, name):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / name).write_text("mine")
    assert demo(folder) == 2
    assert f"{name}: exists, and is not known as a " in capsys.readouterr().err
    assert os.listdir(folder) == [name]
    assert demo(folder, "--force") == 0
    assert (folder / "report.txt").read_text().startswith("Cause of death\n")


@needs_root
def test_a_full_disk(demo, tmp_path, capsys):
    with mounted_tmpfs(tmp_path, 1 << 20) as disk:
        (disk / "report.txt").write_text("Cause of death\nan older one")
        fill(disk)
        assert demo(disk) == 3
        assert f"cannot write {disk}/report.txt: No space" in capsys.readouterr().err
        assert (disk / "report.txt").read_text().endswith("an older one")


def test_what_to_ask_can_be_pasted(demo, tmp_path, capsys):
    folder = tmp_path / ("a name with blanks, longer than a terminal is wide" * 2)
    assert demo(folder) == 0
    *_, ask, drgn = capsys.readouterr().out.splitlines()
    core = str(folder / "core.elf")
    assert shlex.split(ask)[1:] == ["ask", core, "ps", "bt 1", "mount"]
    assert shlex.split(drgn)[1:] == ["-c", core]
