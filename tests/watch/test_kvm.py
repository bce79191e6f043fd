# SPDX-License-Identifier: GPL-2.0-or-later
"""
KVM, in a guest that has it (SVM, emulated): halted and hanging CPUs look otherwise.

The outer guest has kmemdump and QEMU, and watches the inner one.
"""

from pathlib import Path

import pytest

from rigs.kvm_guest import PATIENCE, ask, boot_kvm_guest, said_inside

pytestmark = [pytest.mark.vm, pytest.mark.matrix]

QEMU = (
    Path("/usr/bin/qemu-system-x86_64"),
    Path("/usr/share/seabios/bios-256k.bin"),
    *(
        Path("/usr/share/qemu", name)
        for name in ("kvmvapic.bin", "linuxboot.bin", "linuxboot_dma.bin")
    ),
)


@pytest.fixture
def outer(lab_cache, booted, make_setup, tmp_path):
    program = "kvm_inside.py"
    return boot_kvm_guest(lab_cache, booted, make_setup, tmp_path, program, vmm=QEMU)


def test_hang_and_panic(outer, tmp_path):
    said = outer.run(
        "chroot /python /usr/bin/python3 /run/vm/kvm_inside.py q35", timeout=PATIENCE
    )
    lines = said_inside(said)
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
