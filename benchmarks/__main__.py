# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m benchmarks``: measure, and print tables."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.collect import measure_collect
from benchmarks.figures import write_docs, write_peers
from benchmarks.fleet import measure_fleets
from benchmarks.looks import LookFigures, measure_looks
from benchmarks.peers import measure_peers
from benchmarks.scene import Plan, Scene, play
from benchmarks.sealing import measure_sealing
from benchmarks.tables import (
    print_collect,
    print_fleets,
    print_looks,
    print_peers,
    print_scene,
    print_sealing,
)
from kmemdump.errors import KmemdumpError
from kmemdump.lab import PackageCache, default_folder

_WIDTH = 110


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--kernel", default="6.1", help="as the lab names it")
    parser.add_argument(
        "--tasks", type=int, nargs="+", help="one VM for each (default: 200 2000 10000)"
    )
    parser.add_argument(
        "--vms", type=int, nargs="+", help="watched at once (default: 1 10 100)"
    )
    parser.add_argument("--runs", type=int, help="of what is cheap (default: 5)")
    parser.add_argument(
        "--quick", action="store_true", help="1 GiB, 200 tasks, one run of each"
    )
    parser.add_argument(
        "--collect", action="store_true", help="only what needs no VM: collecting"
    )
    parser.add_argument(
        "--sealing", action="store_true", help="only what needs no VM: sealing"
    )
    parser.add_argument(
        "--peers", action="store_true", help="only what others leave: kdump, pstore"
    )
    parser.add_argument(
        "--memory",
        type=int,
        nargs="+",
        metavar="MIB",
        help="of the machines of --peers (default: 1024 4096 16384; --quick: 1024)",
    )
    parser.add_argument(
        "--crashkernel",
        type=int,
        default=96,
        metavar="MIB",
        help="for a crash kernel of ours, in --peers (default: %(default)s; 64 is "
        "enough for 6.12, which Debian 12's makedumpfile does not know)",
    )
    parser.add_argument(
        "--hotkdump", type=Path, metavar="FOLDER", help="a clone of it, for --peers"
    )
    parser.add_argument(
        "--fleets", action="store_true", help="only many VMs that die at once"
    )
    parser.add_argument(
        "--looks", action="store_true", help="only looks at a kernel, and young tasks"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write this")
    parser.add_argument(
        "--docs",
        type=Path,
        metavar="FOLDER",
        help="put all figures into the README and the manual in this folder",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("build/bench"),
        help="for dumps, 6 GB for a while (default: %(default)s)",
    )
    return parser.parse_args(arguments)


def _memory(options: argparse.Namespace) -> tuple[int, int]:
    return (1024, 0) if options.quick else (4096, 1024)


def _plans(options: argparse.Namespace) -> list[Plan]:
    memory, random = _memory(options)
    tasks = options.tasks or ([200] if options.quick else [200, 2000, 10_000])
    return [
        Plan(options.kernel, memory, random, count, _runs(options)) for count in tasks
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    cache = PackageCache(default_folder(os.environ))
    progress = Console(stderr=True, highlight=False)
    wide = None if sys.stdout.isatty() else _WIDTH
    console = Console(width=wide, highlight=False, record=True)
    for line in _surroundings():
        console.print(line)
    try:
        if options.looks:
            _looks(options, cache, console, progress)
        elif options.peers:
            _peers(options, cache, console, progress)
        elif options.sealing:
            _sealing(options, console)
        elif options.collect:
            _collect(options, console)
        else:
            _watching(options, cache, console, progress)
    except KmemdumpError as error:
        progress.print(f"benchmarks: {error}")
        return int(error.exit_code)
    return 0


def _runs(options: argparse.Namespace) -> int:
    return int(options.runs or (1 if options.quick else 5))


def _sealing(options: argparse.Namespace, console: Console) -> None:
    print_sealing(measure_sealing(options.folder, _runs(options)), console)


def _collect(options: argparse.Namespace, console: Console) -> None:
    print_collect(measure_collect(options.folder, _runs(options)), console)


def _watching(
    options: argparse.Namespace,
    cache: PackageCache,
    console: Console,
    progress: Console,
) -> None:
    """Measure everything but looks and peers; with ``--fleets`` only many VMs."""
    scenes: list[Scene] = []
    if not options.fleets:
        _sealing(options, console)
        _collect(options, console)
        for plan in _plans(options):
            scenes.append(play(plan, cache, options.folder, progress.print))
            print_scene(scenes[-1], console)
    counts = options.vms or ([2] if options.quick else [1, 10, 100])
    fleets = measure_fleets(
        options.kernel, counts, cache, options.folder, progress.print
    )
    print_fleets(fleets, console)
    record = {
        "scenes": [asdict(scene) for scene in scenes],
        "fleets": [asdict(fleet) for fleet in fleets],
    }
    if options.json:
        options.json.write_text(json.dumps(record, indent=2) + "\n")
    if options.docs:
        write_docs(options.docs, record, console.export_text())


def _looks(
    options: argparse.Namespace,
    cache: PackageCache,
    console: Console,
    progress: Console,
) -> None:
    """Measure looks; what was measured is printed if a later machine fails."""
    young = 10 if options.quick else 100
    looks: list[LookFigures] = []
    try:
        for it in _plans(options):
            looks.append(
                measure_looks(
                    *(it.series, it.memory, it.tasks, it.runs, young),
                    cache,
                    progress.print,
                )
            )
    finally:
        print_looks(looks, console)
        if options.json:
            options.json.write_text(json.dumps([asdict(it) for it in looks]) + "\n")


def _peers(
    options: argparse.Namespace,
    cache: PackageCache,
    console: Console,
    progress: Console,
) -> None:
    """Measure other tools; what was measured is kept if a later machine fails."""
    record: dict[str, Any] = {"load": os.getloadavg()[0], "machines": []}
    sizes = options.memory or ([1024] if options.quick else [1024, 4096, 16384])
    for memory in sizes:
        found = measure_peers(
            options.kernel,
            memory,
            cache,
            options.folder,
            options.crashkernel,
            options.hotkdump,
            progress.print,
        )
        print_peers(found, console)
        record["machines"].append(asdict(found))
        if options.json:
            options.json.write_text(json.dumps(record, indent=2) + "\n")
    if options.docs:
        write_peers(options.docs, record)


def _surroundings() -> list[str]:
    """Name the machine and the programs of the measurement."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return [
        f"host: {os.cpu_count()} CPUs ({_cpu_model()}), {memory / 2**30:.0f} GiB, "
        f"load {os.getloadavg()[0]:.1f}, Linux {platform.release()}",
        f"guest: emulated (TCG) by {_first_line('qemu-system-x86_64', '--version')}",
        f"with: kmemdump {version('kmemdump')}, drgn {version('drgn')}, "
        f"{_first_line('crash', '--version')}, Python {platform.python_version()}",
        "seconds and CPU seconds are medians; files were in the page cache",
    ]


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _first_line(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return f"no {argv[0]}"
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    return lines[0].partition(" (")[0] if lines else argv[0]


if __name__ == "__main__":
    sys.exit(main())
