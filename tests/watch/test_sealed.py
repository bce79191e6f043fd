# SPDX-License-Identifier: GPL-2.0-or-later
"""A watch that seals what it writes."""

import os
import subprocess

import pytest

from kmemdump.core import open_core
from kmemdump.lab import CrashType
from kmemdump.lab.crashes import trigger_crash
from rigs.keys import age_key
from rigs.programs import KMEMDUMP
from rigs.watching import PATIENCE, seconds_of

pytestmark = [pytest.mark.vm, pytest.mark.matrix]

PLANTED = "planted in the log of a guest"


def test_death(booted, watch, tmp_path):
    """Only who has the key reads what the kernel said, and no file has it."""
    key = age_key(tmp_path)
    machine = booted("6.12")
    watched = watch(machine, arguments=["--seal", key.public])
    watched.wait_for(r"marked .* areas, .* regions")
    machine.run(f"echo {PLANTED} >/dev/kmsg")
    captured = tmp_path / "captured.core"
    command = [*KMEMDUMP, "capture", f"qmp:{machine.qmp}", "-o", str(captured)]
    subprocess.run(command, timeout=PATIENCE, capture_output=True)
    trigger_crash(machine, CrashType.PANIC)
    seconds_of(watched, "panic")
    assert watched.end() == 0
    [core] = watched.cores
    for folder in {core.parent, tmp_path}:
        for path in filter(os.path.isfile, folder.rglob("*")):
            assert PLANTED.encode() not in path.read_bytes(), path
    with open_core(core, identity=key.file) as opened:
        assert opened.verify() == []
        assert PLANTED in opened.ask("log")
        assert "PID:" in opened.ask("bt -a")
