# SPDX-License-Identifier: GPL-2.0-or-later
"""Compare writing a sealed core image with writing one that is not sealed."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from benchmarks.measure import Cost, in_turn
from benchmarks.scene import Figure
from kmemdump.coreimage import CoreContents, KernelRecord, Manifest, write_core
from kmemdump.memory.physical import PAGE_SIZE, PageMemory
from kmemdump.memory.ranges import Region
from kmemdump.sealing import Seal

__all__ = ["measure_sealing"]

_MIB = (8, 64)
"""A usual core image, and a large one."""
_EM_X86_64 = 62


def measure_sealing(folder: Path, runs: int) -> list[Figure]:
    """
    Measure from memory to a synced file with its name, sealed and not.

    :param folder: On the disk.
    """
    # Loading takes longer than a small core image; a watch has done it.
    import pyrage

    public = str(pyrage.x25519.Identity.generate().to_public())
    figures = []
    for mib in _MIB:
        contents = _contents(mib << 20)
        with TemporaryDirectory(dir=folder) as name:
            write = partial(_write, Path(name) / "core", contents)
            ways: list[tuple[str, Callable[[], Cost]]] = [
                ("not sealed", partial(write, None)),
                ("sealed", partial(write, Seal((public,)))),
            ]
            costs = in_turn([way for _, way in ways], runs)
        for (way, _), cost in zip(ways, costs, strict=True):
            figures.append(
                Figure(f"{mib} MiB, {way}", cost, mib << 20, way != "sealed")
            )
    return figures


def _contents(size: int) -> CoreContents:
    random = Random(1)
    pages = {i: random.randbytes(PAGE_SIZE) for i in range(size // PAGE_SIZE)}
    kernel = KernelRecord("6.12.0-bench", None, _EM_X86_64)
    manifest = Manifest("benchmark", datetime.now(UTC), kernel)
    region = Region(1, "all", 0, size)
    return CoreContents(_EM_X86_64, PageMemory(pages), [region], manifest)


def _write(path: Path, contents: CoreContents, seal: Seal | None) -> Cost:
    path.unlink(missing_ok=True)
    wall, cpu = time.monotonic(), time.process_time()
    write_core(path, contents, seal)
    return Cost(time.monotonic() - wall, time.process_time() - cpu)
