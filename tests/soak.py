# SPDX-License-Identifier: GPL-2.0-or-later
"""
Many VMs that start, die, hang, flood and starve at random under one watch.

A program: ``make soak``. It compares each event of the watch with what was done to the
VM, and measures the watch's memory and its folder. It ends with status 1 at the first
difference. Figures are printed as a table.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from kmemdump.coreimage import read_core, verify
from kmemdump.lab import X86_64, PackageCache, Setup, build_module, default_folder
from kmemdump.text import format_size
from rigs.folder_watch import FolderWatch
from rigs.snapshots import Snapshots
from rigs.soak_vm import SoakVm

_KERNELS = ("6.12", "newest", "6.1")
_KEEP = 5
_MAX_BYTES = 300_000_000
_MEASURE = 10.0
"""Seconds between two measurements."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vms", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--memory", type=int, default=256, help="MiB of each VM")
    given = parser.parse_args()
    packages = PackageCache(default_folder(os.environ))
    snapshots = Snapshots(packages, packages.folder / "snapshots")
    folder = Path(tempfile.mkdtemp(prefix="kmemdump-soak-"))
    limits = ["--keep", str(_KEEP), "--max-bytes", str(_MAX_BYTES)]
    more = ["--then", "quit", "--hang-after", "5"]
    watch = FolderWatch(folder, dict(os.environ), [*limits, *more])
    ending = threading.Event()
    vms = []
    for number in range(given.vms):
        kernel = packages.kernel(_KERNELS[number % len(_KERNELS)], X86_64)
        module = build_module(packages, kernel)
        setup = Setup(kernel, cpus=1, memory=given.memory, tasks=20, module=module)
        name = f"vm{number:02}"
        vm = SoakVm(name, watch, snapshots, setup, ending)
        vm.start()
        vms.append(vm)
    deadline = time.monotonic() + 60 * given.minutes
    print("minutes  actions  deaths  memory of the watch  core images", flush=True)
    start = time.monotonic()
    while not ending.wait(_MEASURE) and time.monotonic() < deadline:
        done = Counter(name for vm in vms for name in vm.done)
        size = sum(path.stat().st_size for path in watch.cores.glob("*.core"))
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
    status = watch.end()
    problems = [str(vm.problem) for vm in vms if vm.problem is not None]
    problems += [f"the watch ended with status {status}"] if status else []
    for path in watch.cores.iterdir():
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
