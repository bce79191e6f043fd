# SPDX-License-Identifier: GPL-2.0-or-later
"""
Makes deaths of known bugs in machines of the lab, and keeps what is left of each.

A folder holds a line for each death, its core image and its console; what these say is
kept in a catalogue, so that it can be read again.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kmemdump.catalogue.place import Place
from kmemdump.catalogue.store import Catalogue
from kmemdump.lab import (
    AARCH64,
    X86_64,
    KernelPackage,
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

__all__ = ["ARCHITECTURES", "BY_NAME", "BugDeaths", "Death", "Job"]

ARCHITECTURES = {arch.name: arch for arch in (X86_64, AARCH64)}
BY_NAME = {bug.name: bug for bug in BUGS}
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
_WATCH = (
    *("--keep", "1000000", "--max-bytes", "100G"),
    *("--hang-after", "4", "--interval", "5"),
)


@dataclass(frozen=True, slots=True)
class Job:
    """A death to be made."""

    number: int
    bug: str
    kernel: str
    architecture: str
    seed: int

    @property
    def name(self) -> str:
        """Of the VM under the watch, and of files."""
        return f"{self.number:03}-{self.bug}-{self.kernel}-{self.architecture}"


@dataclass(frozen=True, slots=True)
class Death:
    """What is left of one."""

    job: Job
    about: str
    """How the bug was met."""
    event: str
    """The signature that the watch reported."""
    core: Path
    console: Path


class BugDeaths:
    """
    Makes deaths under one watch, and reads their signatures.

    :param folder: Made if it is missing. Deaths that are in it are not made again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder = folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        self._packages = PackageCache(default_folder(os.environ))
        self._snapshots = Snapshots(self._packages, self._packages.folder / "snapshots")
        self._deaths, self._consoles = folder / "deaths", folder / "consoles"
        self._catalogue, self._reports = folder / "catalogue", folder / "vmlinux"
        self._watch: FolderWatch | None = None

    def made(self) -> dict[Job, Death]:
        """Return the deaths that were made up to now."""
        found = {}
        for line in _lines(self._deaths):
            job = Job(**line["job"])
            found[job] = Death(
                job,
                line["about"],
                line["event"],
                self._folder / line["core"],
                self._folder / line["console"],
            )
        return found

    def make(self, job: Job) -> Death:
        """
        Make a death.

        :raises AssertionError: If the machine does not die of it.
        :raises KmemdumpError: If there is no such machine.
        """
        if self._watch is None:
            self._watch = FolderWatch(self._folder, dict(os.environ), _WATCH)
        bug, kernel = BY_NAME[job.bug], self._kernel(job)
        setup = Setup(
            kernel,
            cpus=_CPUS,
            memory=512,
            tasks=20,
            files=(build_buggy(self._packages, kernel),),
            arguments=ARGUMENTS,
        )
        with self._snapshots.machine(setup) as machine:
            try:
                death = self._die(self._watch, job, bug, machine)
            finally:
                self._watch.remove(job.name)
        paths = {
            name: str(path.relative_to(self._folder))
            for name, path in (("core", death.core), ("console", death.console))
        }
        left = {"job": asdict(job), "about": death.about, "event": death.event, **paths}
        _append(self._deaths, left)
        return death

    def _kernel(self, job: Job) -> KernelPackage:
        return self._packages.kernel(job.kernel, ARCHITECTURES[job.architecture])

    def _die(self, watch: FolderWatch, job: Job, bug: Bug, machine: Machine) -> Death:
        chance, about = random.Random(f"{job.seed} {job.number}"), []
        load = chance.choice(_LOADS)
        if load:
            machine.run(load)
            about.append(f"load {_LOADS.index(load)}")
        machine.run(bug.commands)
        watch.add(job.name, machine)
        _wait(watch, job.name, "marked", _PATIENCE)
        time.sleep(chance.uniform(0, 2))
        if bug.start is not None:
            bug.start(machine)
        else:
            about.append(_trigger(bug, machine, chance))
        event = _wait(watch, job.name, "death", _PATIENCE + bug.patience)
        if event["kind"] == "panic":
            _finish_console(machine)
        console = self._consoles / job.name
        console.parent.mkdir(exist_ok=True)
        console.write_text(machine.console)
        words = str(event["signature"])
        return Death(job, ", ".join(about), words, Path(event["core"]), console)

    def signatures(self) -> dict[str, str | None]:
        """Return what is known of core images and consoles, by their paths."""
        if not self._catalogue.exists():
            return {}
        catalogue = Catalogue(Place(str(self._catalogue)))
        sql = "SELECT source, signature FROM deaths"
        return dict(catalogue.ask(lambda database: database.rows(sql)))

    def read(self) -> None:
        """
        Read core images and consoles that were not read, as a catalogue does.

        :raises AssertionError: If that fails.
        """
        folders = [self._folder / "cores", self._consoles]
        folders = [folder for folder in folders if folder.exists()]
        if folders:
            words: tuple[str | Path, ...] = (
                "catalogue",
                "add",
                *folders,
                "--to",
                self._catalogue,
                "--json",
            )
            done = run_kmemdump(*words)
            assert done.returncode in (0, 1), done.stderr

    def with_vmlinux(self) -> dict[str, str | None]:
        """Return signatures that were made with debug files, by names of deaths."""
        return {line["name"]: line["signature"] for line in _lines(self._reports)}

    def forget(self) -> None:
        """Have all signatures read again."""
        self._reports.unlink(missing_ok=True)
        shutil.rmtree(self._catalogue, ignore_errors=True)

    def read_with_vmlinux(self, death: Death) -> None:
        """
        Have a report made of a core image, with the kernel's debug file.

        :raises AssertionError: If that fails.
        """
        vmlinux = self._packages.vmlinux(self._kernel(death.job))
        done = run_kmemdump("report", death.core, "--json", "--vmlinux", vmlinux)
        assert done.returncode in (0, 1), f"{death.job.name}: {done.stderr}"
        signature = json.loads(done.stdout)["cause"].get("signature")
        text = None if signature is None else signature["text"]
        _append(self._reports, {"name": death.job.name, "signature": text})

    def end(self) -> int:
        """Let the watch end; return its exit status."""
        return 0 if self._watch is None else self._watch.end()


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        for line in path.read_text().splitlines():
            yield json.loads(line)


def _append(path: Path, value: object) -> None:
    with path.open("a") as file:
        file.write(json.dumps(value) + "\n")


def _finish_console(machine: Machine) -> None:
    """Let a panic print its end: the watch paused the VM before that."""
    machine.resume()
    deadline = time.monotonic() + 10
    while not PANIC_ENDS.search(machine.console) and time.monotonic() < deadline:
        time.sleep(0.2)
    machine.pause()


def _trigger(bug: Bug, machine: Machine, chance: random.Random) -> str:
    """Run into a bug, without waiting for it; return how."""
    cpu = chance.randrange(_CPUS)
    comm = chance.choice(_COMMS)
    if chance.random() < 0.3:
        act = f"insmod /files/buggy.ko die={bug.name}"
        how = f"CPU {cpu}, insmod"
    else:
        machine.run("insmod /files/buggy.ko")
        act = f"echo {bug.name} >/sys/module/buggy/parameters/die"
        how = f"CPU {cpu}, {comm}"
    shell = f"""sh -c 'echo "{comm}" >/proc/self/comm; {act}'"""
    machine.send(f"taskset {1 << cpu:x} {shell} &")
    return how


def _wait(watch: FolderWatch, name: str, event: str, seconds: float) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for found in watch.events(name):
            if found["event"] == event:
                return found
        time.sleep(0.1)
    said = [found["text"] for found in watch.events(name)]
    raise AssertionError(f"{name}: no {event} in {seconds:.0f} s: {said}")
