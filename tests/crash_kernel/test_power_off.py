# SPDX-License-Identifier: GPL-2.0-or-later
"""
The power fails while a crash kernel writes: there is a whole copy, or none.

One real crash kernel writes, and QEMU logs each write to the disk. All that a power-off
can leave follows from the log: the writes up to a moment or, of a disk with a cache,
only some of those since the last flush. QEMU that is killed leaves the former.
"""

import random
import subprocess

import pytest

from kmemdump.crash_kernel.initramfs import pack_crash_initramfs
from kmemdump.crash_kernel.settings import CopierSettings
from kmemdump.lab import CrashType
from kmemdump.lab.copier import build_copier
from kmemdump.lab.crashes import trigger_crash
from rigs.copier import assert_whole, copy_in_file_system, valid_raw
from rigs.crash_kernel import (
    load_crash_kernel,
    make_setup_fields,
    marked_from_outside,
    wait_for_reboot,
)
from rigs.write_log import read_write_log, surviving

pytestmark = [pytest.mark.vm, pytest.mark.matrix]
MOMENTS = 100
LATE = 30
"""So many of them are the last ones, where a copy becomes valid."""
PLACES = {"raw": "raw:/dev/vda", "file": "file:/crash@ext4:/dev/vda"}


@pytest.fixture(scope="module", params=PLACES)
def written(request, snapshots, make_setup, lab_cache):
    """The disk as it was when the kernel died, and all writes of its crash kernel."""
    kind = request.param
    fields = make_setup_fields(lab_cache, make_setup()) | {"disk": 64, "disk_log": True}
    setup = make_setup(**fields)
    initramfs = pack_crash_initramfs(
        build_copier(lab_cache, setup.architecture).read_bytes(),
        CopierSettings((PLACES[kind],)),
        {it: setup.kernel.module(it) for it in setup.disk_modules},
    )
    with snapshots.machine(setup, timeout=900) as machine:
        page, disk = load_crash_kernel(machine, initramfs), machine.folder / "disk"
        if kind == "file":
            subprocess.run(["/usr/sbin/mke2fs", "-qFt", "ext4", disk], check=True)
        with marked_from_outside(machine, page):
            pass
        before = disk.read_bytes()
        said = wait_for_reboot(machine, lambda: trigger_crash(machine, CrashType.PANIC))
        assert " regions, list " in said, said
        writes = read_write_log(machine.folder / "disk-log")
    return kind, before, writes


@pytest.mark.parametrize("cached", [False, True], ids=["", "cached"])
def test_power_off_at_any_moment(written, cached, tmp_path):
    kind, before, writes = written
    chance = random.Random(7)
    last = len(writes)
    moments = [*range(last - LATE + 1, last + 1)]
    moments += [chance.randrange(last) for _ in range(MOMENTS - LATE)]
    whole = 0
    for moment in moments:
        disk = bytearray(before)
        for it in surviving(writes, moment, chance, cached=cached):
            disk[it.offset : it.offset + len(it.data)] = it.data
        if kind == "file":
            found = copy_in_file_system(disk, tmp_path)
        else:
            found = valid_raw(bytes(disk))
        if found is not None:
            assert_whole(found)
            whole += 1
        assert found is not None or moment < last
    assert 0 < whole < MOMENTS
