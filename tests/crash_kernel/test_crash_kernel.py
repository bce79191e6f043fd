# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel dies, and its crash kernel copies what was marked."""

import re
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from kmemdump.cli import main
from kmemdump.core import open_core
from kmemdump.lab import AARCH64, X86_64, Setup
from kmemdump.lab.copier import build_copier
from kmemdump.lab.module import MODULE_NAME
from kmemdump.opening import open_target
from rigs.crash_compare import COMMANDS, compare, newer_crash
from rigs.crash_kernel import (
    FULL_COPY_AT,
    judged_initramfs,
    load_crash_kernel,
    make_setup_fields,
    marked_from_outside,
    wait_for_reboot,
)
from rigs.deaths import BY_NAME
from rigs.dumps import answers
from rigs.programs import run_kmemdump

pytestmark = [pytest.mark.vm, pytest.mark.matrix]
_BLAMED = {
    "sysrq-c": "sysrq",
    "null": "NULL pointer .*lab_null",
    "nmi": "non-maskable interrupt",
    "soft": "was stuck for .*lab_hog",
}
"""How the report begins after each death."""
_LOGGED = re.compile(r"\] {2,3}([\w.]+)\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[\w+\])?$", re.M)
"""A frame of a logged trace of which the kernel is sure."""
_DIE = f"/sys/module/{MODULE_NAME}/parameters/die"
QUESTIONS = ("log", "sys", "ps", "mod", "bt -a", "bt 1", "irq", "mount", "runq")


class Copied(NamedTuple):
    """What a crash kernel left."""

    folder: Path
    """With what the copier wrote, and all of /proc/vmcore, from one crash kernel."""
    said: str
    problems: Sequence[str]
    """Of marking."""
    blamed: str
    setup: Setup

    @property
    def core(self) -> Path:
        """The core image, collected."""
        path = self.folder / "core.elf"
        if not path.exists():
            source = str(self.folder / "partition")
            assert main(["collect", source, "-o", str(path)]) == 0
        return path


@pytest.fixture(scope="module")
def copied(snapshots, make_setup, lab_cache, tmp_path_factory, request):
    kernel, architecture, name = request.param
    folder, death = tmp_path_factory.mktemp("crash"), BY_NAME[name]
    plain = make_setup(kernel, architecture=architecture)
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
            if death.prepare:
                machine.run(death.prepare)

            if name == "null":
                # The copier follows a CPU's task, but not to its pid and its memory:
                # who dies must have been looked at, with the memory that exec gave it.
                dies = f"echo >/ready; read it </go; echo null >{_DIE}"
                machine.run(f"mkfifo /go /ready; sh -c '{dies}' & read it </ready")

            def die() -> None:
                # As its agent would, all the time: tasks come and go on a busy host.
                registration.refresh()
                if name == "null":
                    machine.send("echo >/go")
                else:
                    death.start(machine)
                if name == "soft":
                    # The second time, if the new tasks come while it looks.
                    registration.refresh()
                    registration.refresh()

            said = wait_for_reboot(machine, die)
        with open(machine.folder / "disk", "rb") as disk:
            disk.seek(FULL_COPY_AT << 20)
            with open(folder / "vmcore", "wb") as whole:
                shutil.copyfileobj(disk, whole, 1 << 20)
            disk.seek(0)
            (folder / "partition").write_bytes(disk.read(32 << 20))
    yield Copied(folder, said, problems, _BLAMED[name], setup)
    shutil.rmtree(folder)


CASES = [
    *(
        (kernel, X86_64, death)
        for kernel in ("6.1", "6.12", "newest")
        for death in ("sysrq-c", "null", "nmi", "soft")
    ),
    # Its interrupts have no NMI that QEMU could inject.
    *(("6.12", AARCH64, it) for it in ("sysrq-c", "null", "soft")),
    # Nothing but a debug file names the variables of 6.1.
    ("newest", AARCH64, "sysrq-c"),
]


def each(function, cases=CASES):
    named = [
        pytest.param(it, id=f"{it[0]}-{it[1].name}-{it[2]}")
        for it in CASES
        if it in cases
    ]
    return pytest.mark.parametrize("copied", named, indirect=True)(function)


each_of_x86_64 = partial(each, cases=[it for it in CASES if it[1] is X86_64])


@each
def test_the_copy_answers_as_the_whole_memory_does(copied):
    assert not copied.problems
    found = re.search(r"kmemdump: /dev/vda: (\d+) bytes, (\d+) regions", copied.said)
    assert found, copied.said
    assert 1 << 20 < int(found[1]) < 32 << 20
    assert "could not be read" not in copied.said
    core, vmcore = copied.core, copied.folder / "vmcore"
    with open_target(str(vmcore)) as whole, open_target(str(core)) as copy:
        for item in copy.memory.ranges:
            for at in range(item.start, item.end, 1 << 20):
                size = min(1 << 20, item.end - at)
                assert copy.memory.read(at, size) == whole.memory.read(at, size)
        assert copy.registers() == whole.registers()
        assert copy.vmcoreinfo().raw == whole.vmcoreinfo().raw
    expected = answers(vmcore, QUESTIONS)
    assert answers(core, QUESTIONS) == expected
    assert len(expected["ps"].splitlines()) > 200
    with open_core(core) as opened:
        assert opened.manifest.backend == "kdump"
        assert re.search(copied.blamed, opened.report().cause.sentence)


@each_of_x86_64
def test_the_stack_of_the_cpu_that_died_is_the_one_in_the_log(copied):
    """After a panic, its registers are from a function that the tables leave out."""
    with open_core(copied.core) as opened:
        report = opened.report()
    trace = run_kmemdump("ask", copied.core, "log").stdout.rpartition("Call Trace:")[2]
    logged = [it for it in _LOGGED.findall(trace) if not it.startswith("dump_stack")]
    found = [frame.symbol for frame in report.cpus[0].frames]
    # An oops passes the registers of its place on.
    assert found[0] == ("lab_null" if "lab_null" in copied.blamed else "__crash_kexec")
    assert len(logged) > 3
    places = [found.index(name) for name in logged]
    assert places == sorted(places)


# No crash opens 7.3's whole memory if a module is loaded.
each_for_crash = partial(
    each, cases=[it for it in CASES if it[0] != "newest" and it[1] is X86_64]
)


@each_for_crash
def test_crash_opens_it(copied, vmlinux, lab_cache):
    """A crash that knows the kernel says the same of both."""
    found = compare(
        vmlinux(copied.setup.kernel.name),
        copied.folder / "vmcore",
        copied.core,
        [it for it in COMMANDS if it != "mount"],
        seconds=120,
        crash=newer_crash(lab_cache, X86_64),
    )
    assert len(found.identical) >= 17, found.different


@each_of_x86_64
def test_gdb_opens_it(copied, vmlinux):
    opened = ("open", copied.core, "--with", "gdb", "--vmlinux")
    options = ("-nx", "-batch", "-iex", "set auto-load off", "-ex", "log")
    said = run_kmemdump(*opened, vmlinux(copied.setup.kernel.name), "--", *options)
    log = run_kmemdump("ask", copied.core, "log").stdout
    assert "Linux version" in log
    assert said.stdout.endswith(log), said
