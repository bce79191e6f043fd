# SPDX-License-Identifier: GPL-2.0-or-later
"""The units that keep the list for a crash kernel, and load that kernel."""

import re
import shlex
from pathlib import Path

import pytest

from kmemdump.crash_kernel.installation import ARGUMENTS
from rigs.units import needs_systemd, verify

FOLDER = Path(__file__).parents[2] / "systemd"
UNITS = ("kmemdump-kdump.service", "kmemdump-kexec.service")


@needs_systemd
@pytest.mark.parametrize("name", UNITS)
def test_systemd_understands_it(name, tmp_path):
    assert verify(FOLDER / name, tmp_path) == (0, "")


def test_the_agent_may_drop_what_it_does_not_need():
    """It calls capset() once the page's address is known; @privileged has that."""
    text = (FOLDER / UNITS[0]).read_text()
    assert "CAP_SYS_ADMIN" in re.search("^CapabilityBoundingSet=(.*)$", text, re.M)[1]
    filters = re.findall("^SystemCallFilter=(.*)$", text, re.MULTILINE)
    assert filters[-1] == "capset"
    assert filters[-2].startswith("~@privileged ")


def test_it_loads_what_was_made_for_the_running_kernel():
    text = (FOLDER / UNITS[1]).read_text()
    start = re.search("^ExecStart=(.*)$", text, re.MULTILINE)[1]
    assert shlex.split(start) == [
        "/sbin/kexec",
        *("-a", "-p", "/boot/vmlinuz-%v", "--initrd=/boot/kmemdump-%v.img"),
        f"--append={ARGUMENTS}",
    ]
    assert "ConditionPathExists=/boot/kmemdump-%v.img\n" in text


def test_each_unit_is_in_the_debian_package():
    rules = (FOLDER.parent / "debian/rules").read_text()
    installed = re.findall(r"\$\(SYSTEMD\) --name=([a-z-]+)$", rules, re.MULTILINE)
    assert {f"{name}.service" for name in installed} == {
        path.name for path in FOLDER.glob("*.service")
    }
