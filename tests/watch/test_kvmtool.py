# SPDX-License-Identifier: GPL-2.0-or-later
"""
A real virtual machine monitor without QMP: kvmtool, with KVM in a guest that has it.

No distribution's package: ``KMEMDUMP_KVMTOOL`` names a built clone of its repository
(``make lkvm-static``).
"""

import os
import stat
from pathlib import Path

import pytest

from kmemdump.formats.cpio import Entry, pack_cpio
from rigs.kvm_guest import PATIENCE, ask, boot_kvm_guest, said_inside

PROGRAM = Path(os.environ.get("KMEMDUMP_KVMTOOL", "/nonexistent")) / "lkvm-static"

DIE_LATER = b"""#!/bin/sh
# Process 1, before the lab's: obeys the first line of the disk.
mount -t devtmpfs dev /dev
while sleep 1; do
	[ -b /dev/vda ] || continue
	echo 1 >/proc/sys/vm/drop_caches
	read -r word </dev/vda
	[ -z "$word" ] || echo "$word" >/sys/module/kmemdump_lab/parameters/die
done &
exec /init
"""

pytestmark = [
    pytest.mark.vm,
    pytest.mark.matrix,
    pytest.mark.skipif(
        not PROGRAM.exists(), reason="KMEMDUMP_KVMTOOL names no built kvmtool"
    ),
]


@pytest.fixture
def outer(lab_cache, booted, make_setup, tmp_path):
    more = tmp_path / "more"
    more.write_bytes(pack_cpio([Entry("die-later", stat.S_IFREG | 0o755, DIE_LATER)]))
    programs = ("kvm_inside.py", "kvmtool_inside.py", PROGRAM, more)
    machine = boot_kvm_guest(lab_cache, booted, make_setup, tmp_path, *programs)
    machine.run("cat /run/vm/more >>/run/vm/initramfs")
    machine.run("mkdir /dev/pts; mount -t devpts devpts /dev/pts")
    machine.run("mount -o bind /dev/pts /python/dev/pts")
    machine.run("mkdir /run/vm/rigs; mv /run/vm/*.py /run/vm/rigs")
    return machine


def test_marks_and_death(outer, tmp_path):
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
    assert {"before 0", "ended 0", "goes on True"} <= set(lines)
    running = tmp_path / "running.core"
    outer.fetch("/run/vm/running.core", running)
    assert ask(running, "ps").count(" sleep") >= 20
    [task] = [line for line in ask(running, "ps").splitlines() if " sleep" in line][:1]
    pid = task.split()[0].lstrip(">")
    assert "nanosleep" in ask(running, f"bt {pid}")
    [dead] = [line.split()[1] for line in lines if line.startswith("core ")]
    outer.fetch(dead, tmp_path / "dead.core")
    assert "Kernel panic - not syncing: kmemdump_lab" in ask(
        tmp_path / "dead.core", "log"
    )
