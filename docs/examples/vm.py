# SPDX-License-Identifier: GPL-2.0-or-later
"""Boot a VM to try kmemdump on; kill its kernel when Enter is pressed."""

import os
from pathlib import Path

from kmemdump.lab import (
    CrashType,
    Machine,
    PackageCache,
    Setup,
    crash_guest,
    default_folder,
)

cache = PackageCache(default_folder(os.environ))
with Machine(cache, Setup(cache.kernel("6.1"))) as machine:
    for name, path in (("vm.qmp", machine.qmp), ("vm.ram", machine.ram)):
        Path(name).unlink(missing_ok=True)
        Path(name).symlink_to(path)
    input("vm.qmp and vm.ram are there; press Enter to kill the kernel\n")
    crash_guest(machine, CrashType.PANIC)
    input("dead; press Enter to end\n")
