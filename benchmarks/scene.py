# SPDX-License-Identifier: GPL-2.0-or-later
"""One VM's life and death, and what was measured on the way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Self

from benchmarks.measure import Cost, cpu_seconds, middle, run
from kmemdump.lab import (
    X86_64,
    CrashType,
    Machine,
    PackageCache,
    Setup,
    crash_guest,
)
from rigs.crash_packages import NEWEST_RELEASE, unpacked_crash

__all__ = ["Figure", "Plan", "Scene", "play"]

PYTHON = sys.executable
KMEMDUMP = (PYTHON, "-m", "kmemdump")
DRGN = str(Path(PYTHON).with_name("drgn"))
_QUESTIONS = ("sys", "bt -a")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure."""

    series: str
    memory: int
    """MiB."""
    random: int
    """MiB."""
    tasks: int
    runs: int
    """Number of runs of each cheap measurement."""
    cpus: int = 2


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of a table."""

    name: str
    cost: Cost
    size: int = 0
    """Bytes of the file that was written."""
    peer: bool = False
    """Whether it measures another tool."""


@dataclass(slots=True)
class Scene:
    """What was measured on one VM."""

    plan: Plan
    release: str
    marking: list[Figure] = field(default_factory=list)
    areas: list[dict[str, Any]] = field(default_factory=list)
    dumps: list[Figure] = field(default_factory=list)
    answers: dict[str, list[Figure]] = field(default_factory=dict)
    """By question."""
    verbs: list[Figure] = field(default_factory=list)
    """What other verbs take on a core image."""


class _Keeper:
    """The process of :mod:`benchmarks.keeper`."""

    def __init__(self, socket: Path) -> None:
        self._process = subprocess.Popen(
            [PYTHON, "-m", "benchmarks.keeper", str(socket)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, command: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the keeper died of {command!r}")
        result: dict[str, Any] = json.loads(line)
        return result


def play(
    plan: Plan, cache: PackageCache, folder: Path, say: Callable[[str], None]
) -> Scene:
    """
    Boot a VM, mark it, kill it, and dump it in every way.

    :param folder: For the dumps, which are removed.
    :param say: Called with a line about each step.
    """
    kernel = cache.kernel(plan.series)
    vmlinux = cache.vmlinux(kernel)
    scene = Scene(plan, kernel.release)
    setup = Setup(
        kernel,
        cpus=plan.cpus,
        memory=plan.memory,
        random=plan.random,
        tasks=plan.tasks,
    )
    say(
        f"booting {kernel.release}: {plan.cpus} CPUs, {plan.memory} MiB, "
        f"{plan.random} MiB of random data, {plan.tasks} tasks"
    )
    core, full = folder / "core.elf", folder / "full.elf"
    try:
        with Machine(cache, setup, timeout=900) as machine:
            with _Keeper(machine.qmp) as keeper:
                say("marking it")
                _mark(scene, keeper, plan.runs)
                crash_guest(machine, CrashType.PANIC)
                say("it is dead; writing core images")
                _write(scene, machine, keeper, core)
            _capture(scene, machine, folder / "captured.elf")
            say("asking it with drgn, through QMP")
            for question in _QUESTIONS:
                scene.answers[question] = [_ask_vm(question, machine, vmlinux, plan)]
            for kind in ("kdump-zlib", "elf"):
                say(f"dump-guest-memory in {kind}")
                _dump(scene, machine, full, kind)
        say("opening the dumps")
        newest = unpacked_crash(cache, X86_64, NEWEST_RELEASE)
        for question in _QUESTIONS:
            opened = _open(question, core, full, vmlinux, newest, plan.runs)
            scene.answers[question] = [*opened, *scene.answers[question]]
        scene.verbs = _verbs(core, plan.runs)
    finally:
        for path in (core, full, folder / "captured.elf"):
            path.unlink(missing_ok=True)
    return scene


def _mark(scene: Scene, keeper: _Keeper, runs: int) -> None:
    first = keeper.ask("mark")
    scene.areas = first["areas"]
    scene.marking.append(Figure("first mark", _cost(first), first["bytes"]))
    refresh = middle(lambda: _cost(keeper.ask("refresh")), runs)
    scene.marking.append(Figure("refresh", refresh))


def _cost(answer: dict[str, Any]) -> Cost:
    return Cost(answer["wall"], answer["cpu"], answer["peak"])


def _write(scene: Scene, machine: Machine, keeper: _Keeper, core: Path) -> None:
    named: list[float] = []

    def write() -> Cost:
        start = time.monotonic()
        machine.pause()
        paused = time.monotonic() - start
        answer = keeper.ask(f"write {core}")
        named.append(paused + answer["named"])
        return Cost(time.monotonic() - start, answer["cpu"], answer["peak"])

    # A second look uses the marks up: after the first one, all questions are put.
    cost, *_ = [write() for _ in range(scene.plan.runs)]
    size = core.stat().st_size
    plain = middle(lambda: _write_plainly(core), scene.plan.runs)
    scene.dumps += [
        Figure("kmemdump, marked beforehand", Cost(median(named), 0), size),
        Figure("the same, and looked at again", cost, size),
        Figure("the same bytes, written and synced", plain, size, peer=True),
    ]


def _write_plainly(core: Path) -> Cost:
    data, path = core.read_bytes(), core.with_suffix(".plain")
    start, cpu = time.monotonic(), time.process_time()
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    cost = Cost(time.monotonic() - start, time.process_time() - cpu)
    path.unlink()
    return cost


def _capture(scene: Scene, machine: Machine, path: Path) -> None:
    """Capture a kernel that was not marked: the whole process, with imports."""
    argv = [*KMEMDUMP, "capture", f"qmp:{machine.qmp}", "-o", str(path)]
    cost = middle(lambda: run(argv), scene.plan.runs)
    size = path.stat().st_size if path.exists() else 0
    scene.dumps.append(Figure("kmemdump capture, not marked", cost, size))


def _dump(scene: Scene, machine: Machine, path: Path, kind: str) -> None:
    start, before = time.monotonic(), cpu_seconds(machine.pid)
    machine.full_dump(path, format=kind)
    wall, cpu = time.monotonic() - start, cpu_seconds(machine.pid) - before
    cost = Cost(wall, cpu)  # The guest is paused: all CPU time is the dump's.
    name = f"QEMU dump-guest-memory, {kind}"
    scene.dumps.append(Figure(name, cost, path.stat().st_size, peer=True))


_NO_SYMBOLS = (DRGN, "-q", "--no-default-symbols")
_ALONE = {"DRGN_DISABLE_PLUGINS": "kmemdump"}


def _drgn_code(question: str) -> str:
    return (
        "from drgn.commands import run_command; "
        f"run_command(prog, {f'crash {question}'!r})"
    )


def _ask_vm(question: str, machine: Machine, vmlinux: Path, plan: Plan) -> Figure:
    """Ask the VM itself, as drgn does, which reads memory through QMP."""
    socket, code = str(machine.qmp), _drgn_code(question)
    argv = [*_NO_SYMBOLS, "-s", str(vmlinux), "--qemu", socket, "-e", code]
    cost = middle(lambda: run(argv, environment=_ALONE), min(plan.runs, 3))
    return Figure("drgn, the VM through QMP, vmlinux", cost, peer=True)


def _first_run(argv: list[str | Path], core: Path) -> Cost:
    """Run a program of ours that has no cache yet."""
    cache = core.with_suffix(".cache")
    shutil.rmtree(cache, ignore_errors=True)
    try:
        return run(argv, environment={"XDG_CACHE_HOME": str(cache)})
    finally:
        shutil.rmtree(cache, ignore_errors=True)


def _verbs(core: Path, runs: int) -> list[Figure]:
    figures = []
    for verb in ("report", "info"):
        argv: list[str | Path] = [*KMEMDUMP, verb, core]
        for name, measure in (
            (f"kmemdump {verb}, first time", lambda: _first_run(argv, core)),  # noqa: B023
            (f"kmemdump {verb}, again", lambda: run(argv)),  # noqa: B023
        ):
            figures.append(Figure(name, middle(measure, runs)))
    return figures


def _open(
    question: str,
    core: Path,
    full: Path,
    vmlinux: Path,
    newest: tuple[str, ...],
    runs: int,
) -> list[Figure]:
    code = _drgn_code(question)
    no_symbols = _NO_SYMBOLS
    symbols = (*no_symbols, "-s", vmlinux)
    alone = _ALONE
    crash = ("crash", "-s", vmlinux)
    # Neither a .crashrc nor a terminal changes what crash does.
    plain = {"HOME": "/nonexistent", "TERM": "dumb"}
    typed = f"{question}\nquit\n"

    def figure(name: str, measure: Callable[[], Cost], peer: bool = False) -> Figure:
        # crash takes many seconds, and no two runs differ much.
        cost = middle(measure, min(runs, 3) if name.startswith("crash") else runs)
        if not cost.problem and len(cost.output.splitlines()) < 5:
            cost = Cost(cost.wall, cost.cpu, problem="no answer")
        return Figure(name, cost, peer=peer)

    return [
        figure(
            "kmemdump ask, core image, no debug info, first time",
            lambda: _first_run([*KMEMDUMP, "ask", core, question], core),
        ),
        figure(
            "kmemdump ask, core image, no debug info, again",
            lambda: run([*KMEMDUMP, "ask", core, question]),
        ),
        figure(
            "drgn -c with our plugin, core image, no debug info, first time",
            lambda: _first_run([*no_symbols, "-c", core, "-e", code], core),
        ),
        figure(
            "drgn -c with our plugin, core image, no debug info, again",
            lambda: run([*no_symbols, "-c", core, "-e", code]),
        ),
        figure(
            "kmemdump ask, full dump, no debug info",
            lambda: run([*KMEMDUMP, "ask", full, question]),
        ),
        figure(
            "drgn, core image, vmlinux",
            lambda: run([*symbols, "-c", core, "-e", code], environment=alone),
        ),
        figure(
            "drgn, full dump, vmlinux",
            lambda: run([*symbols, "-c", full, "-e", code], environment=alone),
            peer=True,
        ),
        figure(
            "crash, core image, vmlinux",
            lambda: run([*crash, core], stdin=typed, environment=plain),
        ),
        figure(
            "crash, full dump, vmlinux",
            lambda: run([*crash, full], stdin=typed, environment=plain),
            peer=True,
        ),
        figure(
            "crash 9, full dump, vmlinux",
            lambda: run([*newest, "-s", vmlinux, full], stdin=typed, environment=plain),
            peer=True,
        ),
    ]
