# SPDX-License-Identifier: GPL-2.0-or-later
"""
Write the core images that a release keeps: ``keep.py VERSION``, with PYTHONPATH=tests.

They are compressed, and written once.
"""

import lzma
import os
import sys
import tempfile
from pathlib import Path

from kmemdump import capture, open_target
from kmemdump.lab import Machine, PackageCache, Setup, default_folder
from rigs.small_core import write

CORES = Path(__file__).with_name("cores")


def keep(version: str) -> None:
    """Write the core images of a version, from a kernel that is booted for it."""
    place = CORES / version
    place.mkdir()
    packages = PackageCache(default_folder(os.environ))
    setup = Setup(packages.kernel("6.12"), tasks=0, memory=256)
    with tempfile.TemporaryDirectory() as name:
        small = write(Path(name) / "small.core")
        log = Path(name) / "log.core"
        with (
            Machine(packages, setup) as machine,
            open_target(f"qmp:{machine.qmp}") as target,
        ):
            capture(target, areas=["kmsg"]).save(log)
        for path in (small, log):
            packed = lzma.compress(path.read_bytes(), preset=9)
            (place / f"{path.name}.xz").write_bytes(packed)


if __name__ == "__main__":
    keep(sys.argv[1])
