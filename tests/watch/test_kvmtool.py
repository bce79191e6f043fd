# SPDX-License-Identifier: GPL-2.0-or-later
"""
A real virtual machine monitor without QMP: kvmtool, with KVM in a guest that has it.

No distribution's package: ``KMEMDUMP_KVMTOOL`` names a built clone of its repository
(``make lkvm-static``).
"""

import os
from pathlib import Path

import pytest

from rigs.kvm_guest import PATIENCE, ask, boot_kvm_guest, said_inside

PROGRAM = Path(os.environ.get("KMEMDUMP_KVMTOOL", "/nonexistent")) / "lkvm-static"

pytestmark = [
    pytest.mark.vm,
    pytest.mark.matrix,
    pytest.mark.skipif(
        not PROGRAM.exists(), reason="KMEMDUMP_KVMTOOL names no built kvmtool"
    ),
]


@pytest.fixture
def outer(lab_cache, booted, make_setup, tmp_path):
    programs = ("kvm_inside.py", "kvmtool_inside.py", PROGRAM)
    machine = boot_kvm_guest(lab_cache, booted, make_setup, tmp_path, *programs)
    machine.run("mkdir /dev/pts; mount -t devpts devpts /dev/pts")
    machine.run("mount -o bind /dev/pts /python/dev/pts")
    machine.run("mkdir /run/vm/rigs; mv /run/vm/*.py /run/vm/rigs")
    return machine


def test_capture_and_marks(outer, tmp_path):
    said = outer.run(
        "PYTHONPATH=$PYTHONPATH:/run/vm "
        "chroot /python /usr/bin/python3 -m rigs.kvmtool_inside",
        timeout=PATIENCE,
    )
    lines = said_inside(said)
    [captured] = [line for line in lines if line.startswith("capture ")]
    assert captured.startswith("capture 1 ")
    assert "registers for CPU" in captured  # Only these are missing.
    assert captured.count("incomplete") == 1, said
    assert {"ended 0", "cores 0", "goes on True"} <= set(lines)
    running = tmp_path / "running.core"
    outer.fetch("/run/vm/running.core", running)
    assert ask(running, "ps").count(" sleep") >= 20
    [task] = [line for line in ask(running, "ps").splitlines() if " sleep" in line][:1]
    pid = task.split()[0].lstrip(">")
    assert "nanosleep" in ask(running, f"bt {pid}")
