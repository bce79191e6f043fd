# SPDX-License-Identifier: GPL-2.0-or-later
"""
Many VMs that start, die, hang, flood and starve at random under one watch.

A program: ``make soak``. It compares each event of the watch with what was done to the
VM, and measures the watch's memory and its folder. It ends with status 1 at the first
difference. Figures are printed as a table.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

from kmemdump.coreimage import read_core, verify
from kmemdump.lab import X86_64, PackageCache, Setup, build_module, default_folder
from kmemdump.text import format_size
from rigs.programs import KMEMDUMP
from rigs.snapshots import Snapshots
from rigs.soak_vm import Event, SoakVm

_KERNELS = ("6.12", "newest", "6.1")
_KEEP = 5
_MAX_BYTES = 300_000_000
_MEASURE = 10.0
"""Seconds between two measurements."""


class Watch:
    """A ``kmemdump watch`` of a folder."""

    def __init__(self, sockets: Path, cores: Path, environ: dict[str, str]) -> None:
        self.environ = environ
        self._events: dict[str, list[Event]] = defaultdict(list)
        command = [*KMEMDUMP, "watch", "--json", f"{sockets}/", "-o", str(cores)]
        limits = ["--keep", str(_KEEP), "--max-bytes", str(_MAX_BYTES)]
        self.process = subprocess.Popen(
            [*command, *limits, "--then", "quit", "--hang-after", "5"],
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)
            if event["event"] not in ("alive", "refreshed", "status"):
                self._events[event["vm"]].append(event)

    def events(self, vm: str) -> list[Event]:
        """Return the events of a VM."""
        return self._events[vm]

    def worker(self, vm: str) -> int | None:
        """Return the process that watches a VM."""
        done = subprocess.run(
            [*KMEMDUMP, "status", "--json"], capture_output=True, env=self.environ
        )
        for watch in json.loads(done.stdout or b'{"watches": []}')["watches"]:
            for item in watch["vms"]:
                if item["vm"] == vm and item["state"] == "watched":
                    return int(item["pid"])
        return None

    def memory(self) -> int:
        """Return the memory of all its processes in bytes, shared parts once."""
        return sum(_pss(pid) for pid in _descendants(self.process.pid))


def _descendants(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue
        for child in children:
            found += _descendants(int(child))
    return found


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vms", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--memory", type=int, default=256, help="MiB of each VM")
    given = parser.parse_args()
    packages = PackageCache(default_folder(os.environ))
    snapshots = Snapshots(packages, packages.folder / "snapshots")
    folder = Path(tempfile.mkdtemp(prefix="kmemdump-soak-"))
    sockets, cores = folder / "vms", folder / "cores"
    sockets.mkdir()
    watch = Watch(sockets, cores, os.environ | {"RUNTIME_DIRECTORY": str(folder)})
    ending = threading.Event()
    vms = []
    for number in range(given.vms):
        kernel = packages.kernel(_KERNELS[number % len(_KERNELS)], X86_64)
        module = build_module(packages, kernel)
        setup = Setup(kernel, cpus=1, memory=given.memory, tasks=20, module=module)
        name = f"vm{number:02}"
        vm = SoakVm(name, sockets, snapshots, setup, watch.events, watch.worker, ending)
        vm.start()
        vms.append(vm)
    deadline = time.monotonic() + 60 * given.minutes
    print("minutes  actions  deaths  memory of the watch  core images", flush=True)
    start = time.monotonic()
    while not ending.wait(_MEASURE) and time.monotonic() < deadline:
        done = Counter(name for vm in vms for name in vm.done)
        size = sum(path.stat().st_size for path in cores.glob("*.core"))
        assert size <= _MAX_BYTES, f"{size} bytes of core images"
        minutes = (time.monotonic() - start) / 60
        deaths = sum(done[name] for name in ("panic", "null", "hang", "oops"))
        print(
            f"{minutes:7.1f}  {done.total():7}  {deaths + done['kill QEMU']:6}  "
            f"{format_size(watch.memory()):>19}  {format_size(size):>11}",
            flush=True,
        )
    ending.set()
    for vm in vms:
        vm.join()
    watch.process.send_signal(signal.SIGTERM)
    status = watch.process.wait(60)
    problems = [str(vm.problem) for vm in vms if vm.problem is not None]
    problems += [f"the watch ended with status {status}"] if status else []
    for path in cores.iterdir():
        if ".partial-" in path.name:
            problems.append(f"{path} was left")
        if path.suffix != ".core":
            continue
        with read_core(path) as core:
            problems += [f"{path}: {problem}" for problem in verify(core)]
    for name, count in sorted(Counter(it for vm in vms for it in vm.done).items()):
        print(f"{count:6}  {name}")
    for problem in problems:
        print(problem)
    if not problems:
        shutil.rmtree(folder)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
