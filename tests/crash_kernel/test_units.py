# SPDX-License-Identifier: GPL-2.0-or-later
"""The units that keep the list for a crash kernel, and load that kernel."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from kmemdump.crash_kernel.installation import ARGUMENTS
from rigs.programs import run

FOLDER = Path(__file__).parents[2] / "systemd"
UNITS = ("kmemdump-kdump.service", "kmemdump-kexec.service")
PROGRAMS = re.compile("/usr/bin/kmemdump|/sbin/kexec")


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze"
)
@pytest.mark.parametrize("name", UNITS)
def test_systemd_understands_it(name, tmp_path):
    unit = tmp_path / name  # It wants the programs to be there.
    unit.write_text(PROGRAMS.sub(sys.executable, (FOLDER / name).read_text()))
    done = run("systemd-analyze", "verify", "--man=no", unit)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_loads_what_was_made_for_the_running_kernel():
    text = (FOLDER / UNITS[1]).read_text()
    start = re.search("^ExecStart=(.*)$", text, re.MULTILINE)[1]
    assert shlex.split(start) == [
        "/sbin/kexec",
        *("-p", "/boot/vmlinuz-%v", "--initrd=/boot/kmemdump-%v.img"),
        f"--append={ARGUMENTS}",
    ]
    assert "ConditionPathExists=/boot/kmemdump-%v.img\n" in text


def test_each_unit_is_in_the_debian_package():
    rules = (FOLDER.parent / "debian/rules").read_text()
    installed = re.findall("dh_installsystemd .*--name=([a-z-]+)$", rules, re.MULTILINE)
    assert {f"{name}.service" for name in installed} == {
        path.name for path in FOLDER.glob("*.service")
    }
