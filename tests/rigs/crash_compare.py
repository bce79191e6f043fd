# SPDX-License-Identifier: GPL-2.0-or-later
"""
Compare what ``crash`` says about a core image with what it says about a full dump.

Also a program: ``python tests/rigs/crash_compare.py VMLINUX FULL CORE [COMMAND...]``.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path

from kmemdump.lab import Architecture, PackageCache
from rigs.crash_packages import NEWER_RELEASE, unpacked_crash

COMMANDS = (
    "sys",
    "log",
    "ps",
    "bt -a",
    "bt 1",
    "mod",
    "irq",
    "runq",
    "timer",
    "net",
    "files 1",
    "vm 1",
    "dev",
    "swap",
    "task 1",
    "sig 1",
    "ps -t",
    "mach",
    "sym jiffies",
    "dis schedule",
    "struct task_struct.pid,comm",
    "p jiffies",
    "rd linux_banner 8",
    "mount",  # Last: crash 8.0.2 may search forever for a process to take.
)
"""Commands whose output must be the same for a core image."""

# The output of crash must not be lost when it is killed.
_BUFFERED_BY_LINE = ("stdbuf", "-oL")
CRASH = (*_BUFFERED_BY_LINE, "crash")
"""This machine's crash."""

UNAFFORDABLE = ("kmem -i",)
"""Commands that read memory in proportion to RAM."""

STARTUP = "startup"
"""Section of the output of crash before the first command."""

_MARK = "@@@ section "


@dataclass(frozen=True, slots=True)
class Comparison:
    """What crash says about two dumps of the same kernel."""

    full: dict[str, str]
    """Output for the full dump, by command."""
    core: dict[str, str]
    """Output for the core image, by command."""

    @property
    def identical(self) -> list[str]:
        return [name for name in self.full if self.full[name] == self.core.get(name)]

    @property
    def different(self) -> list[str]:
        return [name for name in self.full if self.full[name] != self.core.get(name)]

    def diff(self, name: str) -> str:
        """Return the differences in the output of one command."""
        return diff(self.full, self.core, [name])


def diff(full: dict[str, str], core: dict[str, str], names: Iterable[str]) -> str:
    """Return the differences in the output of some commands."""
    lines: list[str] = []
    for name in names:
        lines += unified_diff(
            full[name].splitlines(),
            core.get(name, "").splitlines(),
            f"full: {name}",
            f"core: {name}",
            lineterm="",
            n=0,
        )
    return "\n".join(lines)


def crash_version(crash: Sequence[str]) -> str:
    """Return the version of a crash."""
    argv = [*crash, "--version"]
    said = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    found = re.search(r"^crash (\S+)", said, re.MULTILINE)
    return found[1] if found else "?"


def newer_crash(
    cache: PackageCache, architecture: Architecture, release: str = NEWER_RELEASE
) -> tuple[str, ...]:
    """
    Return the command line of a crash in a folder.

    :param release: That of Debian which has it.
    """
    argv = unpacked_crash(cache, architecture, release)
    emulated = architecture.name != platform.machine()
    return argv if emulated else (*_BUFFERED_BY_LINE, *argv)


def run_crash(
    vmlinux: Path,
    dump: Path,
    commands: Sequence[str] = COMMANDS,
    *,
    seconds: int = 60,
    crash: Sequence[str] = CRASH,
) -> dict[str, str]:
    """
    Run commands in one crash session, with no option but ``-s``.

    :param seconds: CPU time that crash gets before it is killed.
    :param crash: The beginning of the command line that starts crash.
    :return: Output by command, after :data:`STARTUP`. Commands that crash did
        not finish are missing. Only the DUMPFILE line is normalised.
    """
    lines = []
    for number, text in enumerate(commands):
        lines += [rf"gdb echo {_MARK}{number}\n", text]
    lines += [rf"gdb echo {_MARK}{len(commands)}\n", "quit", ""]
    # Neither the user's .crashrc nor a terminal may change the output.
    environment = {**os.environ, "HOME": "/nonexistent", "TERM": "dumb"}
    # Some of crash's errors name addresses of crash itself.
    wrappers = f"setarch --addr-no-randomize prlimit --cpu={seconds}"
    done = subprocess.run(
        [*wrappers.split(), *crash, "-s", str(vmlinux), str(dump)],
        input="\n".join(lines).encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        check=False,
    )
    output = done.stdout.decode(errors="backslashreplace")
    output = re.sub(r"(?m)^( *DUMPFILE: ).*", r"\1(dump)", output)
    start, *sections = re.split(rf"(?m)^{_MARK}(\d+)\n", output)
    found = {STARTUP: start}
    for mark, text in zip(sections[::2], sections[1::2], strict=True):
        if int(mark) < len(commands):
            found[commands[int(mark)]] = text
    if done.returncode < 0:
        found.popitem()
    return found


def compare(
    vmlinux: Path,
    full: Path,
    core: Path,
    commands: Sequence[str] = COMMANDS,
    *,
    seconds: int = 60,
    crash: Sequence[str] = CRASH,
) -> Comparison:
    """Run commands on a full dump and on a core image of the same kernel."""
    return Comparison(
        run_crash(vmlinux, full, commands, seconds=seconds, crash=crash),
        run_crash(vmlinux, core, commands, seconds=seconds, crash=crash),
    )


def main(arguments: Sequence[str]) -> int:
    if len(arguments) < 3:
        print(__doc__)
        return 2
    vmlinux, full, core = map(Path, arguments[:3])
    found = compare(vmlinux, full, core, arguments[3:] or COMMANDS)
    for name in found.different:
        print(f"--- {name}\n{found.diff(name)}")
    print(f"identical: {', '.join(found.identical)}")
    print(f"different: {', '.join(found.different) or 'none'}")
    return 1 if found.different else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
