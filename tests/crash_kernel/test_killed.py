# SPDX-License-Identifier: GPL-2.0-or-later
"""
QEMU is killed while a crash kernel writes: there is a whole copy, or none.

The machine's state is kept when its crash kernel is about to start the copier; each
kill begins with it. ``KMEMDUMP_KILLS`` sets their number.
"""

import os
import random
import signal
import subprocess
import time

import pytest

from kmemdump.crash_kernel.initramfs import pack_crash_initramfs
from kmemdump.crash_kernel.settings import CopierSettings
from kmemdump.lab import CrashType, Machine
from kmemdump.lab.copier import build_copier
from kmemdump.lab.crashes import trigger_crash
from rigs.copier import assert_whole, copy_in_file_system, valid_raw
from rigs.crash_kernel import (
    load_crash_kernel,
    make_setup_fields,
    marked_from_outside,
    wait_for_reboot,
    wait_for_text,
)
from rigs.snapshots import restore, save

pytestmark = [pytest.mark.vm, pytest.mark.matrix]
KILLS = int(os.environ.get("KMEMDUMP_KILLS", "20"))
PLACES = {"raw": "raw:/dev/vda", "file": "file:/crash@ext4:/dev/vda"}


@pytest.fixture(scope="module", params=PLACES)
def dying(request, snapshots, make_setup, lab_cache, tmp_path_factory):
    """A machine's setup, and its state when its crash kernel starts the copier."""
    kind, folder = request.param, tmp_path_factory.mktemp("dying")
    fields = make_setup_fields(lab_cache, make_setup()) | {"disk": 64}
    setup = make_setup(**fields)
    initramfs = pack_crash_initramfs(
        build_copier(lab_cache, setup.architecture).read_bytes(),
        CopierSettings((PLACES[kind],)),
        {it: setup.kernel.module(it) for it in setup.disk_modules},
    )
    with snapshots.machine(setup, timeout=900) as machine:
        page = load_crash_kernel(machine, initramfs)
        if kind == "file":
            disk = machine.folder / "disk"
            subprocess.run(["/usr/sbin/mke2fs", "-qFt", "ext4", disk], check=True)
        with marked_from_outside(machine, page):
            pass
        before = len(machine.console)
        trigger_crash(machine, CrashType.PANIC)
        wait_for_text(machine, "Freeing unused kernel image", before)
        save(machine, folder)
    return kind, setup, folder


def test_killed_at_any_moment(dying, lab_cache, tmp_path):
    kind, setup, folder = dying

    def found(machine):
        disk = (machine.folder / "disk").read_bytes()
        return (
            copy_in_file_system(disk, tmp_path) if kind == "file" else valid_raw(disk)
        )

    machine = Machine(lab_cache, setup)
    try:
        restore(machine, folder)
        start = time.monotonic()
        said = wait_for_reboot(machine, lambda: None)
        most = time.monotonic() - start
        assert " regions, list " in said, said
        assert_whole(found(machine))
    finally:
        machine.close()
    chance, whole = random.Random(7), 0
    for _ in range(KILLS):
        machine = Machine(lab_cache, setup)
        try:
            restore(machine, folder)
            time.sleep(chance.uniform(0, most))
            os.kill(machine.pid, signal.SIGKILL)
            os.waitid(os.P_PID, machine.pid, os.WEXITED | os.WNOWAIT)
            copy = found(machine)
            if copy is not None:
                assert_whole(copy)
                whole += 1
        finally:
            machine.close()
    print(f"{KILLS} kills within {most:.1f} s, {whole} after all was written")
    assert whole < KILLS
