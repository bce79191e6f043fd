# SPDX-License-Identifier: GPL-2.0-or-later
"""
Deaths of known bugs, grouped by their signatures.

A program: ``make signatures``. Machines of several kernels and architectures run into
the bugs of `rigs.bugs`, each on a CPU, in a task and at a moment of chance. The
signature of each death comes from the watch's event, from the core image, from what the
console said and, of the first death of each bug on each kernel, from the core image
with the kernel's debug file. It prints the groups, and ends with status 1 if a group
has two bugs, or a bug has two groups.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kmemdump.errors import KmemdumpError
from kmemdump.lab import (
    AARCH64,
    X86_64,
    Architecture,
    Machine,
    PackageCache,
    Setup,
    default_folder,
)
from kmemdump.lab.machine import PANIC_ENDS
from rigs.bugs import ARGUMENTS, BUGS, Bug, build_buggy
from rigs.folder_watch import FolderWatch
from rigs.programs import run_kmemdump
from rigs.snapshots import Snapshots

_DEATHS = 300
_KERNELS = ("6.12", "newest")
_PATIENCE = 240.0
"""Seconds; the host is busy."""
_CPUS = 2
_COMMS = ("sh", "postgres", "kworker/0:1", "java main", "nginx: worker", "(udev)")
_LOADS = (
    "",
    "busybox timeout 99 sh -c 'while :; do :; done' &",
    "busybox timeout 99 sh -c 'while :; do /bin/ls /proc >/dev/null; done' &",
    "busybox timeout 99 dd if=/dev/zero of=/dev/null bs=1M count=999999 &",
)
_ARCHITECTURES = {arch.name: arch for arch in (X86_64, AARCH64)}


class Deaths:
    """Makes deaths under one watch, and reads their signatures."""

    def __init__(self, folder: Path, seed: int, *, vmlinux: bool) -> None:
        self._folder = folder
        self._packages = PackageCache(default_folder(os.environ))
        self._snapshots = Snapshots(self._packages, self._packages.folder / "snapshots")
        limits = ["--keep", "1000000", "--max-bytes", "100G"]
        more = ["--hang-after", "4", "--interval", "5"]
        self.watch = FolderWatch(folder, dict(os.environ), [*limits, *more])
        self._random = random.Random(seed)
        self._vmlinux = vmlinux
        self.found: list[tuple[Bug, str, dict[str, str]]] = []
        """Bug, name of the death, and signatures by where they come from."""
        self._with_vmlinux: set[tuple[str, str, str]] = set()

    def die(self, bug: Bug, kernel: str, architecture: Architecture) -> None:
        """Make a death."""
        package = self._packages.kernel(kernel, architecture)
        setup = Setup(
            package,
            cpus=_CPUS,
            memory=512,
            tasks=20,
            files=(build_buggy(self._packages, package),),
            arguments=ARGUMENTS,
        )
        name = f"{len(self.found):03}-{bug.name}-{kernel}-{architecture.name}"
        start = time.monotonic()
        with self._snapshots.machine(setup) as machine:
            try:
                found, about = self._signatures(name, bug, machine)
            finally:
                self.watch.remove(name)
        key = (bug.name, kernel, architecture.name)
        if self._vmlinux and key not in self._with_vmlinux:
            self._with_vmlinux.add(key)
            vmlinux = self._packages.vmlinux(package)
            core = self._folder / "core-of-death"
            self._read(found, "vmlinux", core, "--vmlinux", str(vmlinux))
        self.found.append((bug, name, found))
        seconds = time.monotonic() - start
        signatures = " | ".join(sorted(set(found.values())))
        print(f"{seconds:5.0f} s  {name:<36} {about:<40} {signatures}", flush=True)
        if len(set(found.values())) > 1:
            print("        differs:", found, flush=True)

    def _signatures(
        self, name: str, bug: Bug, machine: Machine
    ) -> tuple[dict[str, str], str]:
        random, about = self._random, []
        load = random.choice(_LOADS)
        if load:
            machine.run(load)
            about.append(f"load {_LOADS.index(load)}")
        machine.run(bug.commands)
        self.watch.add(name, machine)
        self._wait(name, "marked", _PATIENCE)
        time.sleep(random.uniform(0, 2))
        if bug.start is not None:
            bug.start(machine)
        else:
            about.append(self._trigger(bug, machine))
        event = self._wait(name, "death", _PATIENCE + bug.patience)
        core = self._folder / "core-of-death"
        core.unlink(missing_ok=True)
        os.link(event["core"], core)
        found = {"event": str(event["signature"])}
        self._read(found, "core image", core)
        if event["kind"] == "panic":
            self._finish_console(machine)
        console = self._folder / "console"
        console.write_text(machine.console)
        self._read(found, "console", console)
        return found, ", ".join(about)

    def _finish_console(self, machine: Machine) -> None:
        """Let a panic print its end: the watch paused the VM before that."""
        machine.resume()
        deadline = time.monotonic() + 10
        while not PANIC_ENDS.search(machine.console) and time.monotonic() < deadline:
            time.sleep(0.2)
        machine.pause()

    def _trigger(self, bug: Bug, machine: Machine) -> str:
        """Run into a bug, without waiting for it; return how."""
        cpu = self._random.randrange(_CPUS)
        comm = self._random.choice(_COMMS)
        if self._random.random() < 0.3:
            act = f"insmod /files/buggy.ko die={bug.name}"
            how = f"CPU {cpu}, insmod"
        else:
            machine.run("insmod /files/buggy.ko")
            act = f"echo {bug.name} >/sys/module/buggy/parameters/die"
            how = f"CPU {cpu}, {comm}"
        shell = f"""sh -c 'echo "{comm}" >/proc/self/comm; {act}'"""
        machine.send(f"taskset {1 << cpu:x} {shell} &")
        return how

    def _read(
        self, found: dict[str, str], source: str, path: Path, *options: str
    ) -> None:
        """Add the signature that a report has, if it has one."""
        done = run_kmemdump("report", path, "--json", *options)
        assert done.returncode in (0, 1), f"{path}: {done.stderr}"
        signature = json.loads(done.stdout)["cause"].get("signature")
        if signature is not None:
            found[source] = signature["text"]

    def _wait(self, name: str, event: str, seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for found in self.watch.events(name):
                if found["event"] == event:
                    return found
            time.sleep(0.1)
        said = [found["text"] for found in self.watch.events(name)]
        raise AssertionError(f"{name}: no {event} in {seconds:.0f} s: {said}")


def _jobs(
    deaths: int, kernels: list[str], names: list[str], only: list[str]
) -> Iterator[tuple[Bug, str, Architecture]]:
    """Yield bugs and machines, so that each bug meets each machine."""
    machines = [(k, _ARCHITECTURES[name]) for k in kernels for name in names]
    number = 0
    turn = 0
    while number < deaths:
        for i, bug in enumerate(BUGS):
            kernel, architecture = machines[(i + turn) % len(machines)]
            if bug.name not in (only or [bug.name]):
                continue
            if architecture not in bug.architectures:
                continue
            if number < deaths:
                yield bug, kernel, architecture
            number += 1
        turn += 1


def _problems(deaths: Deaths) -> Iterator[str]:
    """Print the groups, and yield what is wrong with them."""
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    of_bug: dict[str, set[str]] = defaultdict(set)
    for bug, name, found in deaths.found:
        for signature in set(found.values()):
            groups[signature][bug.name] += 1
            of_bug[bug.name].add(signature)
        if "core image" not in found:
            yield f"{name}: no signature of the core image"
        words = found.get("core image", "")
        if bug.function is not None and not words.endswith(f" in {bug.function}"):
            yield f"{name}: {words!r}, expected {bug.function}"
    print(f"\n{len(deaths.found)} deaths, {len(groups)} groups:")
    for signature, bugs in sorted(groups.items(), key=lambda it: -it[1].total()):
        print(f"{bugs.total():5}  {signature:<60} {', '.join(bugs)}")
        if len(bugs) > 1:
            yield f"mixed: {signature!r} has {', '.join(bugs)}"
    for name, signatures in of_bug.items():
        if len(signatures) > 1:
            yield f"split: {name} has {', '.join(map(repr, sorted(signatures)))}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deaths", type=int, default=_DEATHS)
    parser.add_argument("--kernel", action="append", help="only this kernel")
    parser.add_argument("--arch", action="append", choices=[*_ARCHITECTURES])
    parser.add_argument("--only", action="append", help="only this bug")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--no-vmlinux", action="store_true", help="no reports with debug files"
    )
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kmemdump-signatures-"))
    deaths = Deaths(folder, given.seed, vmlinux=not given.no_vmlinux)
    failures = []
    for bug, kernel, architecture in _jobs(
        given.deaths,
        given.kernel or [*_KERNELS],
        given.arch or [*_ARCHITECTURES],
        given.only or [],
    ):
        try:
            deaths.die(bug, kernel, architecture)
        except (KmemdumpError, AssertionError) as error:
            failures.append(f"{type(error).__name__}: {error}")
            print(failures[-1], flush=True)
    status = deaths.watch.end()
    problems = [*failures, *_problems(deaths)]
    print(*problems, sep="\n")
    if not problems:
        shutil.rmtree(folder)
    return 1 if problems or status else 0


if __name__ == "__main__":
    sys.exit(main())
