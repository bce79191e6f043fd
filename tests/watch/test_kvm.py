# SPDX-License-Identifier: GPL-2.0-or-later
"""
KVM, in a guest that has it (SVM, emulated): halted and hanging CPUs look otherwise.

The outer guest has kmemdump and QEMU, and watches the inner one.
"""

import subprocess
from pathlib import Path

import pytest

from kmemdump.lab import X86_64, Machine, python_image
from rigs.programs import KMEMDUMP

pytestmark = [pytest.mark.vm, pytest.mark.matrix]

RIGS = Path(__file__).parents[1] / "rigs"
PATIENCE = 3600
QEMU = (
    Path("/usr/bin/qemu-system-x86_64"),
    Path("/usr/share/seabios/bios-256k.bin"),
    *(
        Path("/usr/share/qemu", name)
        for name in ("kvmvapic.bin", "linuxboot.bin", "linuxboot_dma.bin")
    ),
)
KVM = ("irqbypass", "ccp", "kvm", "kvm-amd")


@pytest.fixture
def outer(lab_cache, booted, make_setup, tmp_path):
    """A guest with KVM, and what its own guest is made of."""
    inner = Machine(lab_cache, make_setup("6.12", tasks=20))
    carried = [tmp_path / name for name in ("vmlinuz", "initramfs")]
    carried[0].write_bytes(inner.setup.kernel.vmlinuz.read_bytes())
    carried[1].write_bytes(inner.initramfs)
    machine = booted(
        "6.12-generic",
        cpu="max",
        memory=2048,
        tasks=0,
        module=None,
        python=python_image(lab_cache, X86_64, QEMU),
        more_modules=KVM,
        files=(*carried, RIGS / "kvm_inside.py"),
    )
    machine.run("test -c /dev/kvm")
    machine.run("mkdir /run/vm; cp /files/* /run/vm/")
    return machine


def ask(core: Path, *questions: str) -> str:
    done = subprocess.run(
        [*KMEMDUMP, "ask", str(core), *questions], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_hang_and_panic(outer, tmp_path):
    said = outer.run(
        "chroot /python /usr/bin/python3 /run/vm/kvm_inside.py q35", timeout=PATIENCE
    )
    lines = [line.removeprefix("INSIDE ") for line in said.splitlines()]
    assert 'kvm {"enabled": true, "present": true}' in lines
    [by_pid] = [line for line in lines if line.startswith("pid 1 ")]
    assert "registers for CPU" in by_pid  # Only these are missing.
    assert by_pid.count("incomplete") == 1, said
    assert "ended 0" in lines
    cores = [line.split()[1] for line in lines if line.startswith("core ")]
    assert len(cores) == 2, said
    fetched = []
    for number, name in enumerate(["/run/vm/pid.core", *cores]):
        fetched.append(tmp_path / f"{number}.core")
        outer.fetch(name, fetched[-1])
    by_process, frozen, panic = fetched
    assert ask(by_process, "ps").count(" sleep") >= 20
    assert "lab_spin" in ask(frozen, "bt -a")
    assert "Kernel panic - not syncing: NMI" in ask(panic, "log")
