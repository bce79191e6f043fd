# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine whose QEMU ends by itself says so, and does not blame the time."""

import os
import sys

import pytest

from kmemdump.errors import TargetError
from kmemdump.lab import KernelPackage, Machine, PackageCache, Setup

QEMU = """#!{python}
import json, os, re, signal, socket, sys, time
fd = re.search(r"id=control,fd=(\\d+)", " ".join(sys.argv))[1]
control = socket.socket(fileno=int(fd))
if {greets}:
    control.sendall(b'{{"QMP": {{"version": {{}}, "capabilities": []}}}}\\n')
    asked = json.loads(control.recv(1 << 16))
    control.sendall(json.dumps({{"return": {{}}, "id": asked["id"]}}).encode())
    time.sleep(0.5)
{end}
"""
BUS = "os.kill(os.getpid(), signal.SIGBUS)"
FULL = r"qemu was ended by signal 7: no room in /\S+ for 1024 MiB; TMPDIR names another"


@pytest.mark.parametrize(
    ("greets", "end", "problem"),
    [
        (True, BUS, f"6.1.0-1 did not boot: {FULL} folder; qemu said: nothing;"),
        (True, "sys.exit(3)", "did not boot: qemu ended with status 3; qemu said"),
        (False, BUS, rf"qemu does not start: nothing \({FULL} folder\)"),
    ],
    ids=["SIGBUS", "exit", "SIGBUS at once"],
)
def test_qemu_ends(greets, end, problem, tmp_path, monkeypatch):
    qemu = tmp_path / "qemu-system-x86_64"
    qemu.write_text(QEMU.format(python=sys.executable, greets=greets, end=end))
    qemu.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    setup = Setup(KernelPackage("6.1", "6.1.0-1", "1", tmp_path))
    machine = Machine(PackageCache(tmp_path / "lab"), setup)
    monkeypatch.setitem(vars(machine), "initramfs", b"")
    with pytest.raises(TargetError, match=problem):
        machine.boot()
