# SPDX-License-Identifier: GPL-2.0-or-later
"""
Collecting a folder of 201 files, beside copying them into one file with ``cat``.

As a program, it collects FOLDER into CORE and prints the seconds and CPU seconds that
this took without the start of Python, and the memory of the process in bytes.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.measure import Cost, in_turn, run
from benchmarks.scene import Figure
from kmemdump.backends.description import Description, describe, row_name
from kmemdump.firmware_dumps.folder import INFO_NAME, info_line
from kmemdump.memory.ranges import Region

__all__ = ["measure_collect"]

_TIMES = 4  # As often as others: it takes less than half a second.
_FILES = 201
_BYTES = 64 << 20
_BASE = 0x9000_0000
_GAP = 1 << 16
_INFO = b"OSRELEASE=6.12.0-bench\nPAGESIZE=4096\nNUMBER(VA_BITS)=48\n"
_EM_AARCH64 = 183


def measure_collect(folder: Path, runs: int) -> list[Figure]:
    """
    Measure what collecting costs.

    :param folder: For the dump, which is removed again.
    :param runs: How often others are measured; this more often.
    """
    dump, output = folder / "minidump", folder / "collected"
    files = _make_dump(dump)
    names = [str(path) for path in files]
    copy = ["sh", "-c", 'cat "$@" > "$0"', str(output), *names]
    durable = ["sh", "-c", 'cat "$@" > "$0" && sync "$0"', str(output), *names]
    script = str(Path(sys.executable).with_name("kmemdump"))  # As people start it.
    ours = [script, "collect", str(dump), "-o", str(output)]
    call = [sys.executable, "-m", "benchmarks.collect", str(dump), str(output)]
    rows: list[tuple[str, Callable[[], Cost]]] = [
        ("cat, then sync", lambda: run(durable)),
        ("cat", lambda: run(copy)),
        ("kmemdump, the call, synced", lambda: _call(call)),
        ("kmemdump collect, whole process", lambda: _run(ours)),
    ]
    starts: list[tuple[str, Callable[[], Cost]]] = [
        ("of it the start: kmemdump --version", lambda: _run([script, "--version"])),
        (
            "of that Python's own: python -c pass",
            lambda: _run([sys.executable, "-c", ""]),
        ),
    ]
    figures = []
    for cold in (False, True):
        these = rows if cold else rows + starts
        measures = [partial(_fresh, it, output, files, cold) for _, it in these]
        costs = in_turn(measures, _TIMES * runs)
        for (name, _), cost in zip(these, costs, strict=True):
            label = f"{name}, files not in memory" if cold else name
            figures.append(Figure(label, cost, _BYTES, "cat" in name))
    output.unlink(missing_ok=True)
    for path in dump.iterdir():
        path.unlink()
    dump.rmdir()
    return figures


def _fresh(
    measure: Callable[[], Cost], output: Path, files: list[Path], cold: bool
) -> Cost:
    # Replacing a file that is there frees its blocks, which takes its time.
    output.unlink(missing_ok=True)
    for path in files if cold else ():
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return measure()


def _run(argv: list[str]) -> Cost:
    # As it is installed: compiled, whatever the one who measures likes.
    return run(argv, environment={"PYTHONDONTWRITEBYTECODE": ""})


def _call(argv: list[str]) -> Cost:
    cost = _run(argv)
    if cost.problem:
        return cost
    wall, cpu, peak = map(float, cost.output.split())
    return replace(cost, wall=wall, cpu=cpu, peak=int(peak))


def _make_dump(folder: Path) -> list[Path]:
    folder.mkdir()
    size = _BYTES // (_FILES - 2) & ~4095
    regions = [
        Region(3 + i, f"r{i}", _BASE + i * (size + _GAP), size, (1 << 63) + i * _GAP)
        for i in range(_FILES - 2)
    ]
    elf, text = describe(Description(_EM_AARCH64, _INFO), regions, slots=201)
    contents = [(Region(1, "", _BASE - (2 << 20), len(elf)), elf)]
    contents.append((Region(2, "", _BASE - (1 << 20), len(text)), text))
    contents += [(region, os.urandom(size)) for region in regions]
    lines, paths = [], []
    for region, data in contents:
        paths.append(folder / f"md_{row_name(region)}{region.id}.BIN")
        paths[-1].write_bytes(data)
        lines.append(info_line(paths[-1].name, region.address, len(data)))
    (folder / INFO_NAME).write_text("".join(lines))
    os.sync()  # What is not written yet cannot be dropped from memory.
    return paths


def _main() -> None:
    from kmemdump.collect.write import write_collected
    from kmemdump.firmware_dumps.folder import collect_folder
    from kmemdump.firmware_dumps.target import DumpTarget

    folder, output = map(Path, sys.argv[1:])
    wall, cpu = time.monotonic(), time.process_time()
    target = DumpTarget(collect_folder(folder))
    missing = write_collected(output, target)
    target.close()
    print(time.monotonic() - wall, time.process_time() - cpu, _peak())
    assert not missing
    assert not target.dump.problems


def _peak() -> int:
    """Return the most memory that this process had, in bytes."""
    # ru_maxrss counts what the parent had before exec(), too.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(it.split()[1]) for it in lines if it.startswith("VmHWM:")) << 10


if __name__ == "__main__":
    _main()
