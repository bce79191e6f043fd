# SPDX-License-Identifier: GPL-2.0-or-later
"""crash, gdb and drgn say of a redacted core image what they said before."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from kmemdump.opening import open_target
from kmemdump.redaction.policy import load_policy
from kmemdump.redaction.redact import redact
from rigs.crash_compare import COMMANDS, CRASH, run_crash
from rigs.dead_machine import DeadMachine
from rigs.scenarios import each_older

DRGN = Path(sys.executable).with_name("drgn")
SAME = ("mod", "swap", "irq", "runq", "sym jiffies", "dis schedule", "p jiffies")
"""Commands of crash whose answers hold nothing that a policy removes."""
AS_MANY = ("sys", "log", "ps", "dev", "net", "files 1", "vm 1")
"""Those that say as much as before, with names and numbers removed."""


@pytest.fixture
def redacted(dead: DeadMachine, core_image: Path) -> Path:
    if dead.scenario.architecture.name != platform.machine():
        pytest.skip("crash would be emulated")
    path = dead.scratch / "redacted.core"
    if not path.exists():
        with open_target(str(core_image)) as target:
            redact(target, load_policy("strict")).save(path)
    return path


@each_older
def test_crash_opens_it(dead: DeadMachine, core_image: Path, redacted: Path) -> None:
    commands = [it for it in COMMANDS if it != "mount"]
    before, after = (
        run_crash(dead.vmlinux, path, commands, seconds=120, crash=CRASH)
        for path in (core_image, redacted)
    )
    assert after.keys() == before.keys()
    assert [it for it in SAME if after[it] != before[it]] == []
    for command in AS_MANY:
        lines = len(before[command].splitlines()), len(after[command].splitlines())
        assert lines[0] == lines[1], (command, after[command][:2000])


@each_older
def test_gdb_opens_it(dead: DeadMachine, core_image: Path, redacted: Path) -> None:
    commands = ("p init_uts_ns.name.release", "p jiffies", "info threads", "bt 3")
    arguments = [part for text in commands for part in ("-ex", text)]

    def say(core: Path) -> str:
        argv = ["gdb", "-nx", "-batch", "-iex", "set auto-load off"]
        argv += [*arguments, str(dead.vmlinux), str(core)]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        return done.stdout

    assert say(redacted) == say(core_image)


@each_older
def test_drgn_opens_it(dead: DeadMachine, redacted: Path) -> None:
    script = (
        "print(prog['init_uts_ns'].name.release.string_().decode(), "
        "prog['init_uts_ns'].name.nodename.string_().decode(), "
        "len(list(for_each_task(prog))) > 200)"
    )
    argv = [str(DRGN), "--no-default-symbols", "-q", "-c", str(redacted), "-e", script]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == dead.machine.setup.kernel.release
    assert done.stdout.split()[2] == "True"
