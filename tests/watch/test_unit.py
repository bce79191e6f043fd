# SPDX-License-Identifier: GPL-2.0-or-later
"""The unit that watches the VMs of a host."""

import re
import shlex
from pathlib import Path

import click

from kmemdump.cli.main import _program
from rigs.programs import run
from rigs.units import needs_systemd, verify

FOLDER = Path(__file__).parents[2] / "systemd"
UNIT = FOLDER / "kmemdump-watch.service"
DEFAULTS = FOLDER / "kmemdump-watch.default"
EXPOSURE = 18
"""Tenths of what systemd-analyze calls the exposure level; 100 is a plain unit."""


def values(text: str, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)


@needs_systemd
def test_systemd_understands_it(tmp_path):
    assert verify(UNIT, tmp_path) == (0, "")


@needs_systemd
def test_exposure():
    done = run(
        "systemd-analyze",
        *("security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager"),
        UNIT,
    )
    assert done.returncode == 0, done.stdout[-200:]


def test_its_rights_are_those_that_are_tested():
    """See ``LEAST`` of tests/checks/test_vm.py."""
    (found,) = values(UNIT.read_text(), "CapabilityBoundingSet")
    assert set(found.split()) == {"CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"}


def test_it_may_stop_the_process_of_a_vm():
    """Of ``pid:PID``, by ptrace(), which the line before forbids with @debug."""
    denied, allowed = values(UNIT.read_text(), "SystemCallFilter")[-2:]
    assert "@debug" in denied
    assert allowed == "ptrace"


def test_its_command_line():
    """With the options in the file of defaults, those in comments included."""
    unit, defaults = UNIT.read_text(), DEFAULTS.read_text()
    text = re.sub(r"^#(?=[A-Z_]+=)", "", defaults, flags=re.MULTILINE)
    (files,) = values(unit, "EnvironmentFile")
    assert files == "-/etc/default/kmemdump-watch"
    variables = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    (command,) = values(unit, "ExecStart")
    used = set(re.findall(r"\$(\w+)", command))
    assert used == variables.keys()
    (first,) = values(unit, "Environment")
    assert first.partition("=")[0] in used
    words = shlex.split(re.sub(r"\$(\w+)", lambda it: variables[it[1]], command))
    assert words[:2] == ["/usr/bin/kmemdump", "watch"]
    context = click.Context(_program, info_name="kmemdump")
    verb = _program.get_command(context, "watch")
    assert verb is not None
    parsed = verb.make_context("watch", words[2:])
    assert str(parsed.params["folder"]) == "/var/lib/kmemdump"
    (state,) = values(unit, "StateDirectory")
    assert f"/var/lib/{state}" == "/var/lib/kmemdump"
