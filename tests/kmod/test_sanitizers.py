# SPDX-License-Identifier: GPL-2.0-or-later
"""
The module under KASAN and lockdep: nothing to report, and each bug is found.

`bugs/` has patches that put back what was wrong once, and what would be wrong with the
locks. Each has commands after which a kernel with the bug reports it, and one without
does not.
"""

import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from kmemdump.lab import Machine, build_modules

HERE = Path(__file__).parent
KMOD = HERE.parents[1] / "kmod"
BUGS = HERE / "bugs"
KERNEL = "sanitizers"
SECONDS = int(os.environ.get("KMEMDUMP_STRESS_SECONDS", "120"))
"""Of the guest's time; half an hour before a release."""
SPLAT = re.compile(
    r"^.*(?:BUG: |WARNING: |Oops|general protection|INFO: (?:rcu|task|trying)|"
    r"UBSAN|list_(?:add|del) corruption|\*\*\* DEADLOCK).*$",
    re.MULTILINE,
)
MEANT = re.compile(
    # Without CONFIG_DEBUG_BUGVERBOSE, there is no file.
    r"WARNING: CPU: .* at (?:\S*core\.c:\d+ )?"
    r"(?:kmemdump_forget|forget_backend|module_changes)[.\w]*\+"
)
"""What the module reports of others."""
END = "stress-is-done"


@dataclass(frozen=True)
class Bug:
    """A bug that is put back."""

    name: str
    """Of its patch."""
    commands: str
    """Run in the guest; ``MODULE`` and ``SAMPLE`` are files."""
    found: str
    """What the kernel says of it."""
    on_top_of: tuple[str, ...] = ()
    """Patches that a kernel without the bug has, too."""
    debug: str = "n"


SAY = "/sys/module/kmemdump_sample/parameters/say"
ALL_BUGS = [
    Bug(
        "freed-ring",
        "insmod MODULE; insmod /files/kmemdump_slow.ko; insmod SAMPLE; "
        f"(while :; do echo {'A' * 60} >{SAY} || break; done 2>/dev/null) & "
        "sleep 1; rmmod kmemdump_sample",
        r"KASAN|unable to handle page fault",
    ),
    Bug(
        "backend-gone",
        "insmod MODULE; insmod /files/kmemdump_backend.ko forget=1; "
        "rmmod kmemdump_backend; insmod SAMPLE",
        r"KASAN|unable to handle page fault",
    ),
    Bug(
        "init-memory",
        # Freed in a work item, after a grace period.
        "insmod MODULE; insmod /files/kmemdump_early.ko; sleep 5; "
        "insmod /files/kmemdump_backend.ko",
        r"KASAN|unable to handle page fault",
    ),
    Bug(
        "wraps-around",
        "insmod MODULE; echo 1 >/sys/module/kmemdump/parameters/last",
        r"WARNING: .* forget_last",
    ),
    Bug(
        "probe-not-there",
        "insmod MODULE",
        r"WARNING: .*tracepoint",
        on_top_of=("no-such-event",),
        debug="y",
    ),
    Bug(
        "interrupts-off",
        "insmod MODULE; insmod /files/kmemdump_stress.ko; rmmod kmemdump_stress",
        r"WARNING: .* (?:check_breaks|check_all|stress_init)",
    ),
    Bug(
        "interrupts-on",
        "insmod MODULE; insmod /files/kmemdump_stress.ko; rmmod kmemdump_stress",
        r"WARNING: inconsistent lock state",
    ),
    Bug(
        "sleeps",
        "insmod MODULE; insmod /files/kmemdump_stress.ko; rmmod kmemdump_stress",
        r"BUG: (?:sleeping function called from invalid context|Invalid wait)",
    ),
]


def patched(folder: Path, *patches: str) -> list[Path]:
    """Return the module's sources with bugs in them, and what only tests have."""
    folder.mkdir()
    for path in KMOD.iterdir():
        if path.suffix in (".c", ".h"):
            shutil.copy(path, folder)
    shutil.copy(HERE / "forget.c", folder)
    kbuild = (KMOD / "Kbuild").read_text()
    (folder / "Kbuild").write_text(f"{kbuild}kmemdump-y += forget.o\n")
    for name in patches:
        argv = ["patch", "--quiet", "--fuzz=0", "-p1", "-i", BUGS / f"{name}.patch"]
        subprocess.run(argv, cwd=folder, check=True)
    return sorted(folder.iterdir())


@pytest.mark.skipif(shutil.which("patch") is None, reason="install patch")
def test_patches_apply(tmp_path):
    for bug in ALL_BUGS:
        patched(tmp_path / bug.name, *bug.on_top_of, bug.name)
    names = {name for bug in ALL_BUGS for name in (*bug.on_top_of, bug.name)}
    assert names == {path.stem for path in BUGS.glob("*.patch")}


def test_what_is_a_splat():
    log = (
        "[    1.0] kmemdump: watching what is freed\n"
        "[    2.0] WARNING: CPU: 1 PID: 9 at /a/core.c:45 kmemdump_forget+0x1/0x3 [k]\n"
        "[    3.0] BUG: KASAN: use-after-free in say+0x76/0x90 [kmemdump_sample]\n"
        "[    4.0] WARNING: possible recursive locking detected\n"
    )
    assert splats(log) == log.splitlines()[2:]


def splats(log: str) -> list[str]:
    """Return what a kernel reports that the module does not report of others."""
    return [it[0] for it in SPLAT.finditer(log) if not MEANT.search(it[0])]


@pytest.fixture(scope="module")
def start(snapshots, make_setup, lab_cache, lab_kernel, tmp_path_factory):
    """``start()`` is a machine with all modules; ``NAME-kmemdump.ko`` has that bug."""
    kernel = lab_kernel(KERNEL)
    folder = tmp_path_factory.mktemp("bugs")
    files = folder / "files"
    files.mkdir()
    sources = [
        *(path for path in sorted(KMOD.iterdir()) if path.suffix in (".c", ".h")),
        *sorted(HERE.glob("*.c")),
        *(KMOD / "Kbuild", HERE / "Kbuild"),
    ]
    options = ("KMEMDUMP_DEBUG=y",)
    built = build_modules(lab_cache, kernel, "kmemdump_kmod", sources, options)
    for path in built.glob("*.ko"):
        shutil.copy(path, files)
    for bug in ALL_BUGS:
        for prefix, patches in (
            ("bad", (*bug.on_top_of, bug.name)),
            ("good", bug.on_top_of),
        ):
            name = f"{bug.name}-{prefix}"
            built = build_modules(
                lab_cache,
                kernel,
                "kmemdump_kmod",
                patched(folder / name, *patches),
                (f"KMEMDUMP_DEBUG={bug.debug}",),
            )
            for path in built.glob("*.ko"):
                shutil.copy(path, files / f"{name}-{path.name}")
    shutil.copy(HERE / "stress.sh", files)
    setup = make_setup(KERNEL, tasks=5, files=tuple(sorted(files.iterdir())))
    return lambda: snapshots.machine(setup, timeout=1800)


def run(machine: Machine, commands: str, *, seconds: float) -> str:
    """Run commands until they end, or the kernel has something to say of them."""
    machine.run("dmesg -n 8", timeout=seconds)
    background = f"({commands}; echo {END} >/dev/kmsg) >/dev/null 2>&1 &"
    machine.run(background, timeout=seconds)
    deadline = time.monotonic() + seconds
    while not (END in machine.console or splats(machine.console)):
        assert time.monotonic() < deadline, machine.console[-500:]
        time.sleep(0.5)
    return machine.console


@pytest.mark.vm
@pytest.mark.matrix
@pytest.mark.parametrize("bug", ALL_BUGS, ids=lambda bug: bug.name)
def test_each_bug_is_found(start, bug):
    for prefix in ("good", "bad"):
        place = f"/files/{bug.name}-{prefix}-kmemdump"
        commands = bug.commands.replace("MODULE", f"{place}.ko")
        commands = commands.replace("SAMPLE", f"{place}_sample.ko")
        with start() as machine:
            log = run(machine, commands, seconds=900)
        if prefix == "good":
            assert splats(log) == []
        else:
            assert re.search(bug.found, splats(log)[0]), splats(log)


@pytest.mark.vm
@pytest.mark.matrix
def test_nothing_to_report(start):
    with start() as machine:
        log = run(machine, f"sh /files/stress.sh {SECONDS}", seconds=SECONDS * 4 + 900)
    assert splats(log) == []
    assert "stress: done" in log, log[-500:]
    assert "stress: round 1" in log
