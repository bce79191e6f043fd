# SPDX-License-Identifier: GPL-2.0-or-later
"""
Put damaged core images through the command line: ``make damaged ARGS='CORE…'``.

Each input is a core image, damaged in a way that its number decides, and goes through
one verb in a process of its own. A traceback, a hang, more than 600 MB or any other
exit status than 0 to 3 is a failure; its input is left in ``build/damaged``.
``tests/tally.json`` says how many inputs were made of each core image.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import sys
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import rigs.verbs  # noqa: F401
from kmemdump.__main__ import run
from rigs.damage import damage, kernel_pointers, move_pointers, spans
from rigs.tally import Count, add_count

FOLDER = Path(os.environ.get("KMEMDUMP_DAMAGED", "build/damaged"))
VERBS: dict[str, tuple[str, ...]] = {
    "info": (),
    "report": (),
    "ask": ("log", "ps", "bt -a", "mod", "kmem -i"),
    "capture": (),
}
MEMORY = 600 << 10  # KiB, as getrusage() counts.
PATIENCE = 90.0
"""CPU seconds."""


@dataclass
class Figures:
    """What the inputs cost."""

    inputs: int = 0
    failures: int = 0
    memory: int = 0
    seconds: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Core:
    """A core image that is good."""

    path: Path
    parts: dict[str, tuple[int, int]]
    pointers: array[int]

    @classmethod
    def read(cls, path: Path) -> Core:
        parts = spans(path)
        found = kernel_pointers(path.read_bytes(), *parts["memory"])
        return cls(path, parts, array("Q", found))

    def damaged(self, chance: random.Random) -> bytes:
        # Not kept: the copies of this process would have it, too.
        data = bytearray(self.path.read_bytes())
        part = chance.choice(["pointers", "pointers", "cut", *self.parts])
        if part == "pointers":
            move_pointers(data, self.pointers, chance)
        elif part == "cut":
            del data[chance.randrange(len(data)) :]
        else:
            damage(data, *self.parts[part], chance)
        return bytes(data)


def attempt(arguments: list[str], output: Path) -> tuple[int, resource.struct_rusage]:
    """Run a verb in a copy of this process; return its status and what it took."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            limit = int(PATIENCE)
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
            fd = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(fd, 1)
            os.dup2(fd, 2)
            sys.argv = ["kmemdump", *arguments]
            run()
        except SystemExit as ended:
            status = int(ended.code or 0)
        finally:
            os._exit(status)
    _, status, usage = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), usage


def judge(status: int, usage: resource.struct_rusage, output: str) -> str:
    """Return what is wrong with how a verb ended; empty if nothing is."""
    if status not in (0, 1, 2, 3):
        return f"exit status {status}"
    if "Traceback" in output or "a bug of kmemdump" in output:
        return "a traceback"
    if usage.ru_maxrss > MEMORY:
        return f"{usage.ru_maxrss >> 10} MiB of memory"
    if any(character in output for character in "\x1b\x9b\u202e\x07"):
        return "an escape sequence"
    return ""


def main_() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("cores", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--inputs", type=int, default=1 << 31, help="at most so many")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    cores = [Core.read(path) for path in options.cores]
    figures = Figures()
    deadline = time.monotonic() + options.seconds
    number = options.first
    while time.monotonic() < deadline and figures.inputs < options.inputs:
        # Files of one number are not in another one's way.
        path, output = FOLDER / f"{number}.core", FOLDER / f"{number}.output"
        chance = random.Random(number)
        core, verb = chance.choice(cores), chance.choice(list(VERBS))
        path.write_bytes(core.damaged(chance))
        arguments = [verb, str(path), *VERBS[verb]]
        if verb == "capture":
            arguments += ["-o", str(FOLDER / f"{number}.new")]
        if chance.random() < 0.5:
            arguments.append("--damaged")
        status, usage = attempt(arguments, output)
        problem = judge(status, usage, output.read_text(errors="replace"))
        if problem:
            figures.failures += 1
            print(f"{number}: {core.path.name}, {verb}: {problem}", flush=True)
            path.rename(FOLDER / f"failed-{number}.core")
        for left in FOLDER.glob(f"{number}.*"):
            left.unlink()
        figures.inputs += 1
        figures.memory = max(figures.memory, usage.ru_maxrss)
        figures.seconds = max(figures.seconds, usage.ru_utime + usage.ru_stime)
        figures.statuses[f"{verb} {status}"] += 1
        used = usage.ru_utime + usage.ru_stime
        memory = usage.ru_maxrss >> 10
        count = Count(0, 1, int(bool(problem)), used, used, memory)
        add_count(f"core image {core.path.stem}", count)
        number += 1
    print(
        f"{figures.inputs} inputs from {options.first} on: "
        f"{figures.failures} failures, "
        f"at most {figures.memory >> 10} MiB and {figures.seconds:.1f} s of CPU; "
        f"{dict(sorted(figures.statuses.items()))}"
    )
    return 1 if figures.failures else 0


if __name__ == "__main__":
    sys.exit(main_())
