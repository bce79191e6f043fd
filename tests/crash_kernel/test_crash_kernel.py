# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel dies, and its crash kernel copies what was marked."""

import re
import shutil

import pytest

from kmemdump.cli import main
from kmemdump.core import open_core
from kmemdump.lab import CrashType
from kmemdump.lab.copier import build_copier
from kmemdump.lab.crashes import trigger_crash
from kmemdump.opening import open_target
from rigs.crash_kernel import (
    FULL_COPY_AT,
    judged_initramfs,
    load_crash_kernel,
    make_setup_fields,
    marked_from_outside,
    wait_for_reboot,
)
from rigs.dumps import answers

pytestmark = [pytest.mark.vm, pytest.mark.matrix]
_BLAMED = {
    CrashType.PANIC: "sysrq",
    CrashType.NULL: "lab_null",
    CrashType.NMI: "CPU",
}
"""A word of the cause of each death."""
QUESTIONS = ("log", "sys", "ps", "mod", "bt -a", "bt 1", "irq", "mount", "runq")


@pytest.fixture(scope="module")
def copied(snapshots, make_setup, lab_cache, tmp_path_factory, request):
    """
    What the copier left of a dead kernel, and /proc/vmcore whole: both from the same
    crash kernel.
    """
    kernel, death = request.param
    folder = tmp_path_factory.mktemp("crash")
    plain = make_setup(kernel)
    setup = make_setup(kernel, **make_setup_fields(lab_cache, plain))
    modules = {it: setup.kernel.module(it) for it in setup.disk_modules}
    initramfs = judged_initramfs(
        build_copier(lab_cache, setup.architecture),
        lab_cache.busybox(setup.architecture),
        modules,
        ("to=raw:/dev/vda",),
    )
    with snapshots.machine(setup, timeout=900) as machine:
        page = load_crash_kernel(machine, initramfs)
        with marked_from_outside(machine, page) as registration:
            problems = registration.last.problems
        said = wait_for_reboot(machine, lambda: trigger_crash(machine, death))
        with open(machine.folder / "disk", "rb") as disk:
            disk.seek(FULL_COPY_AT << 20)
            with open(folder / "vmcore", "wb") as whole:
                shutil.copyfileobj(disk, whole, 1 << 20)
            disk.seek(0)
            (folder / "partition").write_bytes(disk.read(32 << 20))
    yield folder, said, problems, _BLAMED[death]
    shutil.rmtree(folder)


CASES = [
    (kernel, death)
    for kernel in ("6.1", "6.12", "newest")
    for death in (CrashType.PANIC, CrashType.NULL, CrashType.NMI)
]


def each(function):
    cases = [pytest.param(it, id="-".join(it)) for it in CASES]
    return pytest.mark.parametrize("copied", cases, indirect=True)(function)


@each
def test_the_copy_answers_as_the_whole_memory_does(copied):
    folder, said, problems, blamed = copied
    assert not problems
    found = re.search(r"kmemdump: /dev/vda: (\d+) bytes, (\d+) regions", said)
    assert found, said
    assert 1 << 20 < int(found[1]) < 32 << 20
    assert "could not be read" not in said
    core = folder / "core.elf"
    assert main(["collect", str(folder / "partition"), "-o", str(core)]) == 0
    with open_target(str(folder / "vmcore")) as whole, open_target(str(core)) as copy:
        for item in copy.memory.ranges:
            for at in range(item.start, item.end, 1 << 20):
                size = min(1 << 20, item.end - at)
                assert copy.memory.read(at, size) == whole.memory.read(at, size)
        assert copy.registers() == whole.registers()
        assert copy.vmcoreinfo().raw == whole.vmcoreinfo().raw
    expected = answers(folder / "vmcore", QUESTIONS)
    assert answers(core, QUESTIONS) == expected
    assert len(expected["ps"].splitlines()) > 200
    with open_core(core) as opened:
        assert opened.manifest.backend == "kdump"
        assert blamed in opened.report().cause.sentence
