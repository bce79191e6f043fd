# SPDX-License-Identifier: GPL-2.0-or-later
"""
Compare collecting a folder of 201 files with copying them into one by ``cat``.

As a program, it collects FOLDER into CORE and prints the seconds and CPU seconds that
the call took, without the start of Python, and the peak memory of the process in bytes.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measure import Cost, in_turn, run
from benchmarks.scene import Figure
from kmemdump.backends.elf_header_region import Description, describe, row_name
from kmemdump.collect.source import Options, open_source
from kmemdump.collect.write import write_collected
from kmemdump.firmware_dumps.folder import INFO_NAME, info_line
from kmemdump.memory.ranges import Region

__all__ = ["measure_collect"]

_FILES = 201
_BYTES = 1 << 30
_BASE = 0x9000_0000
_GAP = 1 << 16
_INFO = b"OSRELEASE=6.12.0-bench\nPAGESIZE=4096\nNUMBER(VA_BITS)=48\n"
_EM_AARCH64 = 183
_TMPFS = Path("/dev/shm")

_Measure = Callable[[], Cost]


def measure_collect(folder: Path, runs: int) -> list[Figure]:
    """
    Measure what collecting costs, with files on the disk and in tmpfs.

    :param folder: Folder on the disk for the dump, which is removed again.
    """
    figures = _measure_in(folder, runs, ("", ", files not in memory"))
    if _has_room(_TMPFS):
        with TemporaryDirectory(dir=_TMPFS, prefix="kmemdump-bench-") as tmpfs:
            figures += _measure_in(Path(tmpfs), runs, (", in tmpfs",))
    return figures


def _has_room(folder: Path) -> bool:
    try:
        status = os.statvfs(folder)
    except OSError:
        return False
    # Files in tmpfs take memory, and the measurement needs more than that.
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(status.f_bavail * status.f_frsize, pages) > 3 * _BYTES


def _measure_in(folder: Path, runs: int, places: Sequence[str]) -> list[Figure]:
    """Measure each row with the files in each of *places*, named in the labels."""
    dump, output = folder / "minidump", folder / "collected"
    files = _make_dump(dump)
    try:
        rows = _rows(dump, output, files)
        figures = []
        for place in places:
            cold = "not in memory" in place
            measures = [partial(_fresh, it, output, files, cold) for _, it in rows]
            for (name, _), cost in zip(rows, in_turn(measures, runs), strict=True):
                size = 0 if "start" in name else _BYTES
                figures.append(Figure(name + place, cost, size, "cat" in name))
        return figures
    finally:
        output.unlink(missing_ok=True)
        for path in dump.iterdir():
            path.unlink()
        dump.rmdir()


def _rows(
    dump: Path, output: Path, files: Sequence[Path]
) -> list[tuple[str, _Measure]]:
    names = [str(path) for path in files]
    copy = ["sh", "-c", 'cat "$@" > "$0"', str(output), *names]
    durable = ["sh", "-c", 'cat "$@" > "$0" && sync "$0"', str(output), *names]
    script = str(Path(sys.executable).with_name("kmemdump"))  # As users start it.
    call = [sys.executable, "-m", "benchmarks.collect", str(dump), str(output)]
    ours = [script, "collect", str(dump), "-o", str(output)]
    return [
        ("cat, then sync", lambda: run(durable)),
        ("cat", lambda: run(copy)),
        ("kmemdump, the call, synced", lambda: _call(call)),
        ("kmemdump collect, whole process", lambda: _run(ours)),
        ("of it the start: kmemdump --version", lambda: _run([script, "--version"])),
    ]


def _fresh(measure: _Measure, output: Path, files: Sequence[Path], cold: bool) -> Cost:
    # Replacing an existing file frees its blocks, which takes time.
    output.unlink(missing_ok=True)
    for path in files if cold else ():
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return measure()


def _run(argv: list[str]) -> Cost:
    # Compiled, as when installed, whatever the user of the benchmarks prefers.
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
    described = [
        (Region(1, "", _BASE - (2 << 20), len(elf)), elf),
        (Region(2, "", _BASE - (1 << 20), len(text)), text),
    ]
    # One by one: a program that is started later begins with this process's peak.
    others = ((region, os.urandom(size)) for region in regions)
    lines, paths = [], []
    for region, data in itertools.chain(described, others):
        paths.append(folder / f"md_{row_name(region)}{region.id}.BIN")
        paths[-1].write_bytes(data)
        lines.append(info_line(paths[-1].name, region.address, len(data)))
    (folder / INFO_NAME).write_text("".join(lines))
    os.sync()  # Pages not yet written cannot be dropped from memory.
    return paths


def _main() -> None:
    folder, output = map(Path, sys.argv[1:])
    wall, cpu = time.monotonic(), time.process_time()
    with open_source(str(folder), Options()) as target:
        missing = write_collected(output, target)
    print(time.monotonic() - wall, time.process_time() - cpu, _peak())
    assert not missing
    assert not target.dump.warnings


def _peak() -> int:
    """Return the most memory that this process had, in bytes."""
    # ru_maxrss counts the parent's memory before exec(), too.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(it.split()[1]) for it in lines if it.startswith("VmHWM:")) << 10


if __name__ == "__main__":
    _main()
