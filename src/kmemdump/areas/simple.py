# SPDX-License-Identifier: GPL-2.0-or-later
"""Areas that need no questions of our own."""

from kmemdump.areas.area import area

__all__ = ["DEVICES", "IPC", "KERNEL", "MOUNTS", "NET", "SYMBOLS", "TIMERS"]

MOUNTS = area("mounts", "mounted file systems", "mount")
TIMERS = area("timers", "pending timers", "timer")
NET = area("net", "network interfaces", "net")
DEVICES = area("devices", "character and block devices, I/O ports", "dev", "dev -i")
IPC = area("ipc", "System V shared memory, semaphores, message queues", "ipcs")

# Marking reads the tables itself, since each region in them keeps its name; see
# kernel/registered_regions.py.
KERNEL = area(
    "kernel",
    "regions that drivers registered: with module kmemdump, or in the series' tables",
)
# Attaching reads all symbols and types, so no question is left to put. Marking takes
# the pages that attaching read.
SYMBOLS = area(
    "symbols", "kallsyms, BTF and unwind tables of the kernel itself", packed=True
)
