# SPDX-License-Identifier: GPL-2.0-or-later
"""
A process that marks a VM while it lives, and writes its core image when it is dead.

``python -m benchmarks.keeper QMP_SOCKET`` reads a command from each line of standard
input, and answers with a line of JSON: ``mark`` (first), ``refresh``, ``write PATH``.
It has a process of its own, which keeps its cost apart from the benchmark's.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from kmemdump.coreimage import Death
from kmemdump.marking.selection import select
from kmemdump.opening import open_target
from kmemdump.watch.dump import write_dump
from kmemdump.watch.vm_marks import VmMarks

__all__: list[str] = []


class _Session:
    def __init__(self, socket: str) -> None:
        self._target = open_target(f"qmp:{socket}")
        self._marks: VmMarks | None = None

    def mark(self) -> dict[str, object]:
        """Mark for the first time."""
        self._marks = VmMarks(self._target, select())
        return {
            "regions": len(self._marks.registry),
            "bytes": self._marks.size,
            "areas": [
                {
                    "name": area.name,
                    "regions": len(area.ranges),
                    "bytes": sum(item.size for item in area.ranges),
                    "seconds": area.seconds,
                    "packed": area.packed,
                    "reason": area.reason,
                }
                for area in self._marks.capture.marking.areas
            ],
        }

    def refresh(self) -> dict[str, object]:
        """Mark again what may have changed."""
        self.marks.refresh()
        return {"regions": len(self.marks.registry)}

    def write(self, path: str) -> dict[str, object]:
        """Write the core image."""
        start = time.monotonic()
        dump = write_dump(self.marks, Path(path), Death())
        missing = sum(item.size for item in dump.missing)
        return {"missing": missing, "named": dump.named - start}

    @property
    def marks(self) -> VmMarks:
        assert self._marks is not None, "the first command is mark"
        return self._marks


def _measured(work: Callable[[], dict[str, object]]) -> dict[str, object]:
    wall, cpu = time.monotonic(), time.process_time()
    result = work()
    result["wall"] = time.monotonic() - wall
    result["cpu"] = time.process_time() - cpu
    result["peak"] = _peak()
    return result


def _peak() -> int:
    # Not ru_maxrss, which starts with the parent's value.
    for line in Path(f"/proc/{os.getpid()}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0


def main(socket: str) -> None:
    session = _Session(socket)
    for line in sys.stdin:
        verb, *arguments = line.split()
        work = functools.partial(getattr(session, verb), *arguments)
        print(json.dumps(_measured(work)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
