# SPDX-License-Identifier: GPL-2.0-or-later
"""
Compare looks that ask only for what changed with full ones, for an hour.

Guests of several kernels are under load, one after another, and are stopped anywhere.
"""

import argparse
import os
import random
import sys
import time

from kmemdump.lab import (
    AARCH64,
    X86_64,
    PackageCache,
    Setup,
    build_module,
    default_folder,
)
from rigs.looks import Looks
from rigs.snapshots import Snapshots

KERNELS = (
    ("6.1", X86_64),
    ("6.12", X86_64),
    ("newest", X86_64),
    ("6.12", AARCH64),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/looks.py", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="in all")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    cache = PackageCache(default_folder(os.environ))
    snapshots = Snapshots(cache, cache.folder / "snapshots")
    print(f"seed {options.seed}", flush=True)
    for name, architecture in KERNELS:
        kernel = cache.kernel(name, architecture)
        setup = Setup(kernel, module=build_module(cache, kernel))
        with snapshots.machine(setup, timeout=900) as machine:
            looks = Looks(machine, random.Random(options.seed))
            end = time.monotonic() + 60 * options.minutes / len(KERNELS)
            while time.monotonic() < end:
                looks.round()
        print(
            f"{kernel.release}: {looks.looks} looks, {looks.full} of them asked for "
            "everything; no difference",
            flush=True,
        )
        if looks.full == looks.looks:
            print("no look asked only for what changed")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
