# SPDX-License-Identifier: GPL-2.0-or-later
"""
A real virtual machine monitor without QMP: kvmtool, with KVM in a guest that has it.

No distribution's package: ``KMEMDUMP_KVMTOOL`` names a built clone of its repository
(``make lkvm-static``).
"""

import os
import subprocess
from pathlib import Path

import pytest

from kmemdump.lab import X86_64, Machine, python_image
from rigs.programs import KMEMDUMP

RIGS = Path(__file__).parents[1] / "rigs"
PROGRAM = Path(os.environ.get("KMEMDUMP_KVMTOOL", "/nonexistent")) / "lkvm-static"
PATIENCE = 3600
KVM = ("irqbypass", "ccp", "kvm", "kvm-amd")

pytestmark = [
    pytest.mark.vm,
    pytest.mark.matrix,
    pytest.mark.skipif(
        not PROGRAM.exists(), reason="KMEMDUMP_KVMTOOL names no built kvmtool"
    ),
]


@pytest.fixture
def outer(lab_cache, booted, make_setup, tmp_path):
    """A guest with KVM, and what its own guest is made of."""
    inner = Machine(lab_cache, make_setup("6.12", tasks=20))
    carried = [tmp_path / name for name in ("vmlinuz", "initramfs")]
    carried[0].write_bytes(inner.setup.kernel.vmlinuz.read_bytes())
    carried[1].write_bytes(inner.initramfs)
    programs = [RIGS / name for name in ("kvm_inside.py", "kvmtool_inside.py")]
    machine = booted(
        "6.12-generic",
        cpu="max",
        memory=2048,
        tasks=0,
        module=None,
        python=python_image(lab_cache, X86_64),
        more_modules=KVM,
        files=(*carried, *programs, PROGRAM),
    )
    machine.run("test -c /dev/kvm")
    machine.run("mkdir /dev/pts; mount -t devpts devpts /dev/pts")
    machine.run("mount -o bind /dev/pts /python/dev/pts")
    machine.run(
        "mkdir -p /run/vm/rigs; cp /files/* /run/vm/; mv /run/vm/*.py /run/vm/rigs"
    )
    return machine


def ask(core: Path, *questions: str) -> str:
    done = subprocess.run(
        [*KMEMDUMP, "ask", str(core), *questions], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_capture_and_marks(outer, tmp_path):
    said = outer.run(
        "PYTHONPATH=$PYTHONPATH:/run/vm "
        "chroot /python /usr/bin/python3 -m rigs.kvmtool_inside",
        timeout=PATIENCE,
    )
    lines = [line.removeprefix("INSIDE ") for line in said.splitlines()]
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
