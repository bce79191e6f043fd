# SPDX-License-Identifier: GPL-2.0-or-later
"""
Every death of `rigs.deaths` on several kernels, and what is no death, under one watch.

A program: ``make campaign``. Each machine dies for real. Its core image must be whole
or say what it lacks, and its report must begin with the right cause. What is no death
must leave no core image. It prints a line for each, and ends with status 1 if one was
wrong.
"""

from __future__ import annotations

import argparse
import os
import queue
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from kmemdump.errors import KmemdumpError, UnsupportedError
from kmemdump.lab import (
    AARCH64,
    X86_64,
    Architecture,
    PackageCache,
    Setup,
    build_module,
    default_folder,
)
from rigs.death_check import problems_of
from rigs.deaths import DEATHS, NO_DEATHS, Death, NoDeath, unpack_modules
from rigs.folder_watch import FolderWatch
from rigs.snapshots import Snapshots

_KERNELS = (("6.12", X86_64), ("newest", X86_64), ("6.1", X86_64), ("6.12", AARCH64))
_PATIENCE = 180.0
"""Seconds; the host is busy."""

Job = tuple[str, Architecture, Death | NoDeath]


class Campaign:
    """Kills machines under one watch."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._packages = PackageCache(default_folder(os.environ))
        self._snapshots = Snapshots(self._packages, self._packages.folder / "snapshots")
        limits = ["--keep", "1000000", "--max-bytes", "100G", "--hang-after", "4"]
        self.watch = FolderWatch(folder, dict(os.environ), [*limits, "--interval", "5"])
        self._numbers = iter(range(1_000_000))
        self.results: list[tuple[str, list[str]]] = []

    def work(self, jobs: queue.SimpleQueue[Job | None]) -> None:
        """Do jobs until there is none."""
        while (job := jobs.get()) is not None:
            kernel, architecture, what = job
            name = f"{kernel}-{architecture.name}-{what}-{next(self._numbers)}"
            start = time.monotonic()
            try:
                problems = self._try(name, kernel, architecture, what)
            except UnsupportedError as error:
                print(f"skipped  {name}: {error}", flush=True)
                continue
            except (KmemdumpError, AssertionError) as error:
                problems = [f"{type(error).__name__}: {error}"]
            finally:
                self.watch.remove(name)
            self.results.append((str(what), problems))
            state = "wrong  " if problems else "right  "
            seconds = time.monotonic() - start
            print(f"{state} {seconds:5.0f} s  {name}", *problems, flush=True)

    def _try(
        self, name: str, kernel: str, architecture: Architecture, what: Death | NoDeath
    ) -> list[str]:
        package = self._packages.kernel(kernel, architecture)
        modules = what.modules if isinstance(what, Death) else ("watchdog", "softdog")
        with tempfile.TemporaryDirectory(dir=self._folder) as files:
            setup = Setup(
                package,
                module=build_module(self._packages, package),
                files=tuple(unpack_modules(package, modules, Path(files))),
            )
            if isinstance(what, Death):
                setup = Setup(
                    package,
                    module=setup.module,
                    files=setup.files,
                    action=what.action,
                    devices=what.devices,
                )
            with self._snapshots.machine(setup) as machine:
                if isinstance(what, Death) and what.prepare:
                    machine.run(what.prepare)
                self.watch.add(name, machine)
                self._wait(name, "marked", _PATIENCE)
                what.start(machine)
                if isinstance(what, Death):
                    core = self._wait(name, "death", _PATIENCE + what.patience)
                    return problems_of(Path(core), what)
                if what.ends:
                    self._wait(name, "orderly", _PATIENCE)
                time.sleep(0 if what.ends else what.seconds + 6)
                return [
                    f"{event['event']}: {event['text']}"
                    for event in self.watch.events(name)
                    if event["event"] in ("death", "no-core")
                ]

    def _wait(self, name: str, event: str, seconds: float) -> str:
        """Wait for an event; return its core image, if it has one."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for found in self.watch.events(name):
                if found["event"] == event:
                    return str(found.get("core", ""))
            time.sleep(0.2)
        said = [found["text"] for found in self.watch.events(name)]
        raise AssertionError(f"no {event} in {seconds:.0f} s: {said}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernel", action="append", help="only this kernel")
    parser.add_argument("--only", action="append", help="only this death or event")
    parser.add_argument("--at-once", type=int, default=3, metavar="MACHINES")
    given = parser.parse_args()
    jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
    everything: tuple[Death | NoDeath, ...] = (*DEATHS, *NO_DEATHS)
    for kernel, architecture in _KERNELS:
        for what in everything:
            if (
                architecture in what.architectures
                and kernel in (given.kernel or [kernel])
                and str(what) in (given.only or [str(what)])
            ):
                jobs.put((kernel, architecture, what))
    folder = Path(tempfile.mkdtemp(prefix="kmemdump-campaign-"))
    campaign = Campaign(folder)
    threads = []
    for _ in range(given.at_once):
        jobs.put(None)
        threads.append(threading.Thread(target=campaign.work, args=(jobs,)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    status = campaign.watch.end()
    deaths = {str(death) for death in DEATHS}
    total = Counter(
        (what in deaths, not problems) for what, problems in campaign.results
    )
    print(
        f"{total[True, True]} deaths right, {total[True, False]} wrong; "
        f"{total[False, True]} events that are no death right, "
        f"{total[False, False]} wrong; the watch ended with status {status}"
    )
    wrong = total[True, False] + total[False, False]
    if not wrong:
        shutil.rmtree(folder)
    return 1 if wrong or status else 0


if __name__ == "__main__":
    sys.exit(main())
