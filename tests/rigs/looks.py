# SPDX-License-Identifier: GPL-2.0-or-later
"""Looks at a guest under load: an incremental one must mark what a full one marks."""

import random
import time
from dataclasses import dataclass, field

from kmemdump.lab import Machine
from kmemdump.marking.again import look_again
from kmemdump.marking.capture import Capture, look
from kmemdump.marking.selection import select
from kmemdump.opening import open_target

__all__ = ["LOADS", "Looks"]

LOADS = (
    "for i in 1 2 3; do ls / >/dev/null; done",
    "(sleep 1; :) & (sleep 0.2; :) & sleep 0.05",
    "for i in 1 2 3 4 5; do (sleep 3 &) ; done",
    "cat /proc/interrupts /proc/meminfo /proc/slabinfo >/dev/null 2>&1",
    "exec 5</init 6</etc/passwd; sleep 0.1; exec 5<&- 6<&-",
    "mkdir -p /tmp/m && mount -t tmpfs none /tmp/m && echo x >/tmp/m/x",
    "umount /tmp/m",
    "dd if=/dev/zero of=/tmp/file bs=64k count=8; rm -f /tmp/file",
    "rmmod dummy; modprobe dummy || insmod $(find / -name 'dummy.ko*' | head -n 1)",
    "for i in /proc/irq/*/smp_affinity; do echo 1 >$i; done",
    "for i in /proc/irq/*/smp_affinity; do echo 3 >$i; done",
    "echo a line of the log >/dev/kmsg",
    "kill $(pidof sleep | cut -d' ' -f1)",
    "yes >/dev/null & sleep 0.2; kill $!",
)
"""What a guest does between two looks; some of it may fail."""

_PATIENCE = 600.0
"""Seconds for a guest: a busy host is slow."""


@dataclass
class Looks:
    """Looks again and again at a machine, and compares each with a full look."""

    machine: Machine
    chance: random.Random
    looks: int = 0
    full: int = 0
    """How many looks had to put all questions."""
    last: Capture | None = field(default=None, repr=False)

    def round(self) -> None:
        """Let the machine work for a while, stop it anywhere, and look at it."""
        command = self.chance.choice(LOADS)
        self.machine.run(f"({command}) >/dev/null 2>&1 & echo", timeout=_PATIENCE)
        time.sleep(self.chance.random() * 0.3)
        self.machine.pause()
        try:
            self._compare(command)
        finally:
            self.machine.resume()

    def _compare(self, command: str) -> None:
        target = open_target(f"qmp:{self.machine.qmp}")
        try:
            selection = select()
            if self.last is None:
                self.last = look(target, selection, again=True)
                return
            found = look_again(self.last, target, selection)
            assert found.history is not None
            self.looks += 1
            self.full += found.history.looks == 0
            known = found.kernel.own_debug_info
            whole = look(target, selection, known, again=True)
            assert _blocks(found) == _blocks(whole), command
            assert found.regions == whole.regions, command
            for region in found.regions:
                expected = target.memory.read(region.address, region.size)
                assert found.memory.read(region.address, region.size) == expected
            reasons = [area.reason for area in whole.marking.areas]
            assert [area.reason for area in found.marking.areas] == reasons, command
            self.last = found
        finally:
            target.close()


def _blocks(capture: Capture) -> frozenset[int]:
    """Return all blocks; what two areas read first may be either's."""
    return frozenset().union(*(area.blocks for area in capture.marking.areas))
