# SPDX-License-Identifier: GPL-2.0-or-later
"""``watch`` with all that it does by default, on each kernel: a panic, and a hang."""

import json
import subprocess
import threading
from contextlib import closing

import pytest

from kmemdump.coreimage import read_core, verify
from kmemdump.lab import CrashType
from kmemdump.lab.crashes import trigger_crash
from rigs.programs import KMEMDUMP, run_kmemdump
from rigs.scenarios import each_kernel, tells

pytestmark = pytest.mark.vm

PATIENCE = 300  # Seconds; the host may be busy.
CAUSES = {CrashType.PANIC: "panic: ", CrashType.SPIN: "frozen: CPU "}
KINDS = {CrashType.PANIC: "panic", CrashType.SPIN: "hang"}


@each_kernel
@pytest.mark.parametrize(
    "death",
    [
        pytest.param(CrashType.PANIC, marks=pytest.mark.matrix),
        CrashType.SPIN,
    ],
)
def test_watch_notices(booted, vmlinux, architecture, kernel, death, tmp_path):
    machine = booted(kernel, architecture=architecture)
    options = []
    if not tells(architecture, kernel):
        options = ["--vmlinux", str(vmlinux(kernel, architecture))]
    command = [*KMEMDUMP, "watch", "--json", str(machine.qmp), "-o", str(tmp_path)]
    process = subprocess.Popen(
        [*command, "--until-dead", "--hang-after", "3", *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    guard = threading.Timer(PATIENCE, process.kill)
    guard.start()
    said = []
    try:
        for line in process.stdout:
            said.append(json.loads(line).get("text", ""))
            if said[-1].startswith("marked "):
                trigger_crash(machine, death)
        assert process.wait() == 0, said
    finally:
        guard.cancel()
        process.kill()
        process.wait()
        process.stdout.close()
    assert any(text.startswith(CAUSES[death]) for text in said), said
    [path] = tmp_path.glob("*.core")
    with closing(read_core(path)) as core:
        assert verify(core) == []
        assert core.manifest.marked_at is not None
    report = run_kmemdump("report", path, "--json", *options)
    assert report.returncode == 0, report.stderr
    assert json.loads(report.stdout)["cause"]["kind"] == KINDS[death]
