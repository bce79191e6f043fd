# SPDX-License-Identifier: GPL-2.0-or-later
"""What the demonstration understands of a crash kernel's console, and fetches."""

import os
from types import SimpleNamespace

import pytest

from kmemdump.errors import TargetError
from kmemdump.lab.crash_kernel_demo import fetch_core, wait_for_copy

DEATH = "[    5.1] Kernel panic - not syncing: sysrq triggered crash\n"
BOOT = "[    0.0] Linux version 6.12 (debian)\n"
COPIED = "kmemdump: /dev/vdc: 17737728 bytes, 936 regions, list 2, in 540 ms\r\n"


def say(*lines):
    return SimpleNamespace(console="".join(lines))


def test_says_what_was_written():
    said, seconds = wait_for_copy(say(BOOT, DEATH, BOOT, COPIED), len(BOOT))
    assert said == COPIED.strip().removeprefix("kmemdump: ")
    assert seconds == 0.54


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (
            "[    4.3] Kernel panic - not syncing: System is deadlocked on memory\n",
            "Kernel panic - not syncing: System is deadlocked on memory$",
        ),
        ("kmemdump: nothing was marked\n", "it says: kmemdump: nothing was marked$"),
    ],
)
def test_does_not_wait_for_a_crash_kernel_that_is_gone(line, why):
    with pytest.raises(TargetError, match=f"wrote nothing; .*{why}"):
        wait_for_copy(say(BOOT, DEATH, BOOT, line, BOOT), len(BOOT))


def machine(folder, fetch):
    return SimpleNamespace(folder=folder, fetch=fetch)


def test_what_is_fetched_gets_its_name_when_it_is_whole(tmp_path):
    inside, core = tmp_path / "machine", tmp_path / "out/core.elf"
    inside.mkdir()
    core.parent.mkdir()
    fetch_core(machine(inside, lambda name, path: path.write_text(name)), core)
    assert core.read_text() == "/run/core.elf"
    assert core.stat().st_mode & 0o777 == 0o600

    def fetch_a_part(name, path):
        path.write_text("a part")
        raise TargetError("the guest is gone")

    with pytest.raises(TargetError):
        fetch_core(machine(inside, fetch_a_part), core)
    assert os.listdir(core.parent) == ["core.elf"]
    assert core.read_text() == "/run/core.elf"
