# SPDX-License-Identifier: GPL-2.0-or-later
"""``strings`` finds no planted word in twenty redacted core images, which differ."""

import shutil
import subprocess
from pathlib import Path

import pytest

from kmemdump.areas import AREAS
from kmemdump.lab import CrashType, Machine, crash_guest
from kmemdump.marking.capture import capture
from kmemdump.opening import open_target
from kmemdump.redaction.policy import load_policy
from kmemdump.redaction.redact import redact
from rigs.planted import ADDRESS, WORD, memory_of, needles_left, plant, secret
from rigs.snapshots import restore, save

pytestmark = [pytest.mark.vm, pytest.mark.matrix]

WORDS = (WORD, "SECRET", ADDRESS)
SELECTIONS = (
    {},
    {"questions": ["ps -a", "foreach bt", "files 1"]},
    # Without the free pages, which have the size of the machine.
    {"areas": [area.name for area in AREAS if area.name != "free-pages"]},
)
"""What is captured: the default, what is kept only on request, and all areas."""
MOMENTS = (
    ":",
    f"for i in 1 2 3; do echo {secret('logl')} $i >/dev/kmsg; done",
    "for i in 1 2 3 4 5; do busybox sleep 600 & done",
    f"busybox mkdir -p /mnt && busybox mount -t tmpfs {secret('mntd')}-2 /mnt",
    f"busybox mkdir /run/{secret('dirn')}-2 && echo {WORD} >/run/{secret('file')}-2",
    f"busybox ip link add {WORD}0 type dummy && busybox ip link set {WORD}0 up",
    f"echo {secret('host')}-2 >/proc/sys/kernel/hostname; echo {WORD} >/dev/kmsg",
    "busybox find /sys /run >/dev/null; busybox sleep 1",
)
"""What a machine that lives does before it is captured."""
DEATHS = (CrashType.PANIC, CrashType.NULL, CrashType.SPIN, CrashType.NMI)
NAMES = [
    *(f"moment-{i}" for i in range(len(MOMENTS))),
    *(f"{death}-{i}" for death in DEATHS for i in range(len(SELECTIONS))),
]


@pytest.fixture(scope="module")
def cores(snapshots, make_setup, lab_cache, tmp_path_factory) -> Path:
    """A folder of core images: the secrets are planted once."""
    if shutil.which("gcc") is None or shutil.which("strings") is None:
        pytest.skip("gcc or strings is not here")
    folder, state = (tmp_path_factory.mktemp(name) for name in ("cores", "planted"))
    setup = make_setup("6.12")

    def take(machine: Machine, name: str, selection: dict) -> None:
        with open_target(f"qmp:{machine.qmp}") as target:
            capture(target, **selection).save(folder / name)

    with snapshots.machine(setup) as machine:
        plant(machine, folder)
        save(machine, state)
        for i, command in enumerate(MOMENTS):
            machine.run(command)
            take(machine, f"moment-{i}", SELECTIONS[i % len(SELECTIONS)])
    for death in DEATHS:
        machine = Machine(lab_cache, setup)
        try:
            restore(machine, state)
            crash_guest(machine, death)
            machine.pause()
            for i, selection in enumerate(SELECTIONS):
                take(machine, f"{death}-{i}", selection)
        finally:
            machine.close()
    return folder


def test_there_are_twenty():
    assert len(NAMES) == 20


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_found(cores, name, tmp_path):
    core, left = cores / name, tmp_path / "redacted.core"
    assert WORD in strings(core)  # Or nothing would be proven.
    with open_target(str(core)) as target:
        found = redact(target, load_policy("strict"))
        found.save(left)
    assert found.problems == []
    said = strings(left)
    assert [word for word in WORDS if word in said] == []
    assert needles_left(left.read_bytes() + memory_of(left)) == set()


def strings(path: Path) -> str:
    """Return what ``strings`` finds, in bytes and in UTF-16 and UTF-32."""
    return "".join(
        subprocess.run(
            ["strings", "--all", "--bytes=4", f"--encoding={encoding}", path],
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
        ).stdout
        for encoding in "Slb"
    )
