# SPDX-License-Identifier: GPL-2.0-or-later
"""What the demonstration understands of a crash kernel's console."""

from types import SimpleNamespace

import pytest

from kmemdump.errors import TargetError
from kmemdump.lab.crash_kernel_demo import wait_for_copy

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
