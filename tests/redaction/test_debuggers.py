# SPDX-License-Identifier: GPL-2.0-or-later
"""crash, gdb and drgn say of a redacted core image what they said before."""

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from kmemdump.lab import Machine, PackageCache
from kmemdump.opening import open_target
from kmemdump.redaction.policy import POLICIES, load_policy
from kmemdump.redaction.redact import redact
from rigs.crash_compare import COMMANDS, newer_crash, run_crash
from rigs.crash_packages import NEWER_RELEASE, NEWEST_RELEASE
from rigs.dead_machine import DeadMachine, without_modules
from rigs.scenarios import each_redacted

DRGN = Path(sys.executable).with_name("drgn")
SAME = (
    *("mod", "irq", "runq", "timer", "swap", "mach", "sig 1"),
    *("sym jiffies", "dis schedule", "p jiffies", "rd linux_banner 8"),
    "struct task_struct.pid,comm",
)
"""Commands of crash whose answers hold nothing that a policy removes."""
DUMPED = "task 1"
"""
It prints arrays of bytes, whose rows get other lengths: zeros are counted, not printed.
"""
ZERO = re.compile(r"(0x)?[0:.,{}]*|\(null\)")


@pytest.fixture(params=sorted(POLICIES))
def policy(request) -> str:
    return request.param


@pytest.fixture
def redacted(policy: str, dead: DeadMachine, core_image: Path) -> Path:
    return redacted_of(core_image, policy)


def redacted_of(core: Path, policy: str) -> Path:
    path = core.with_suffix(f".{policy}")
    if not path.exists():
        with open_target(str(core)) as target:
            redact(target, load_policy(policy)).save(path)
    return path


class Opened(NamedTuple):
    """A core image that a crash opens."""

    crash: Sequence[str]
    core: Path
    said: dict[str, str]


@pytest.fixture(scope="session")
def opened() -> dict[str, Opened]:
    """What was opened, by scenarios: a session takes long."""
    return {}


def open_with_crash(
    dead: DeadMachine,
    core: Path,
    cache: PackageCache,
    booted: Callable[..., Machine],
) -> Opened:
    """Return what the crash says that opens a core image of this kernel."""
    scenario = dead.scenario
    release = NEWEST_RELEASE if scenario.kernel == "newest" else NEWER_RELEASE
    argv = newer_crash(cache, scenario.architecture, release)

    def say(core: Path, commands: Sequence[str]) -> dict[str, str]:
        return run_crash(dead.vmlinux, core, commands, seconds=240, crash=argv)

    if "RELEASE: " not in say(core, ["sys"]).get("sys", ""):
        # 9.0.2 wants num_gpl_syms of struct module, which 7.2 does not have.
        machine = booted(scenario.kernel, cpus=scenario.cpus)
        _, core = without_modules(dead, machine)
    return Opened(argv, core, say(core, COMMANDS))


def is_masked(before: str, after: str) -> bool:
    """Return whether a word is another one, some of which was removed."""
    if len(before) == len(after):
        return all(
            new in (old, "x", "0") for old, new in zip(before, after, strict=True)
        )
    return ZERO.fullmatch(after) is not None


def unexplained(before: str, after: str) -> list[tuple[str, str]]:
    """Return lines of which a word became another one, and not a masked one."""
    old, new = before.splitlines(), after.splitlines()
    if len(old) != len(new):
        return [(before, after)]
    return [
        (one, other)
        for one, other in zip(old, new, strict=True)
        if len(one.split()) != len(other.split())
        or not all(map(is_masked, one.split(), other.split()))
    ]


@each_redacted
def test_crash(
    dead: DeadMachine,
    core_image: Path,
    policy: str,
    lab_cache: PackageCache,
    booted: Callable[..., Machine],
    opened: dict[str, Opened],
) -> None:
    name = str(dead.scenario)
    if name not in opened:
        opened[name] = open_with_crash(dead, core_image, lab_cache, booted)
    argv, core, old = opened[name]
    left = redacted_of(core, policy)
    new = run_crash(dead.vmlinux, left, COMMANDS, seconds=240, crash=argv)
    assert new.keys() == old.keys()
    # crash 9.0.2 may not come to the end of one command of Linux 7.3.
    assert len(old) >= len(COMMANDS)
    assert old["ps"].count("sleep") >= 200
    assert [it for it in SAME if new.get(it) != old.get(it)] == []
    wrong = {it: unexplained(old[it], new[it]) for it in old if it != DUMPED}
    assert {it: lines for it, lines in wrong.items() if lines} == {}
    numbers = [re.findall(r"\b(?:pid|tgid) = \d+", it[DUMPED]) for it in (old, new)]
    assert numbers[0] == numbers[1] == ["pid = 1", "tgid = 1"]


GDB = (
    *("p init_uts_ns.name.release", "p jiffies", "p/x page_offset_base"),
    *("info threads", "x/4i schedule", "p init_task.tasks"),
    *("p/x *init_mm.pgd@512", "ptype struct list_head", "info line schedule"),
)
"""
What gdb is asked. No stack traces: it has nothing that unwinds the kernel's stacks, and
takes what looks like an address for a frame.
"""


@each_redacted
def test_gdb_says_the_same(dead: DeadMachine, core_image: Path, redacted: Path) -> None:
    arguments = [part for text in GDB for part in ("-ex", text)]

    def say(core: Path) -> str:
        argv = ["gdb", "-nx", "-batch", "-iex", "set auto-load off"]
        argv += [*arguments, str(dead.vmlinux), str(core)]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        return done.stdout

    old, new = say(core_image), say(redacted)
    # The first lines say by what the file was "generated": the kernel's command line.
    assert unexplained(old, new) == []
    assert old.split("$1 = ")[1] == new.split("$1 = ")[1]
    assert dead.machine.setup.kernel.release in new
    assert new.count("$") >= 4


SCRIPT = """\
from drgn.helpers.linux import *
print(prog['init_uts_ns'].name.release.string_().decode())
print(prog['jiffies'])
for module in sorted(it.name for it in prog.modules()): print(module)
for cpu in for_each_online_cpu(prog): print(cpu_curr(prog, cpu).pid)
for task in for_each_task(prog):
    print(task.pid, task_state_to_char(task), task.mm.value_(), task.parent.pid)
    try:
        print(prog.stack_trace(task))
    except (FaultError, ValueError) as error:
        print(error)
"""
"""
What plain drgn is asked. Of it, only places in programs are removed, at the end of
stack traces.
"""


@each_redacted
def test_drgn(dead: DeadMachine, core_image: Path, redacted: Path) -> None:
    def say(core: Path) -> str:
        argv = [str(DRGN), "--no-default-symbols", "-q", "-c", str(core), "-e", SCRIPT]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        return done.stdout

    old, new = say(core_image), say(redacted)
    assert unexplained(old, new) == []
    assert new.startswith(dead.machine.setup.kernel.release)
    assert new.count("#0 ") > 200
