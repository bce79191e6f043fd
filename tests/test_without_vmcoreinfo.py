# SPDX-License-Identifier: GPL-2.0-or-later
"""Real kernels whose notes are wiped out of their memory: known by their contents."""

import mmap
from pathlib import Path

import pytest

from kmemdump.lab.machine_folder import copy_sparse
from kmemdump.opening import open_target
from rigs.dead_machine import DeadMachine
from rigs.dumps import answers
from rigs.scenarios import each_series_once

pytestmark = pytest.mark.vm

PAGE = 4096
NOTE_HEAD = 12 + 12
QUESTIONS = ("log", "mod", "mount", "ps", "ps -t", "sys", "timer")
ONLY_THEIRS = {"NUMBER(KERNELPACMASK)"}
"""0 where a CPU does not sign return addresses; ours is right for both."""


def wipe(path: Path) -> int:
    """Overwrite all copies of VMCOREINFO, and return how many there were."""
    wiped = 0
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        at = memory.find(b"OSRELEASE=")
        while at >= 0:
            page = at // PAGE * PAGE
            # At the start of a page, or behind a note's head; else it is a format.
            if at - page <= NOTE_HEAD and b"\nPAGESIZE=" in memory[at : page + PAGE]:
                memory[page : page + PAGE] = bytes(PAGE)
                wiped += 1
            at = memory.find(b"OSRELEASE=", at + 1)
    return wiped


@each_series_once
def test_known_by_its_contents(dead: DeadMachine, core_image: Path, tmp_path) -> None:
    with open_target(str(core_image)) as target:
        theirs = target.vmcoreinfo().values
    ram = tmp_path / "ram"
    copy_sparse(dead.machine.folder / "ram", ram)
    assert wipe(ram) or dead.scenario.kernel == "android"
    with open_target(str(ram)) as target:
        info = target.vmcoreinfo()
    assert "kernel at 0x" in info.source
    ours = info.values
    # Each line is the one that the kernel wrote, and nothing that it needs is missing.
    both = ours.keys() & theirs.keys() - ONLY_THEIRS
    assert {key: ours[key] for key in both} == {key: theirs[key] for key in both}
    assert len(both) > 80
    # Without registers, since it is a mere image.
    assert answers(ram, QUESTIONS) == answers(core_image, QUESTIONS)
    ram.unlink()
