# SPDX-License-Identifier: GPL-2.0-or-later
"""Areas without questions of our own: one crash command, or none, covers each."""

from kmemdump.areas.area import area

__all__ = ["DEVICES", "KERNEL", "MOUNTS", "NET", "SYMBOLS", "TIMERS"]

MOUNTS = area("mounts", "mounted file systems", "mount")
TIMERS = area("timers", "pending timers", "timer")
NET = area("net", "network interfaces", "net")
DEVICES = area("devices", "character and block devices", "dev")

# Marking reads the tables itself, since each of their regions keeps its name: see
# kernel/registered_regions.py.
KERNEL = area(
    "kernel",
    "regions that drivers registered: with module kmemdump, or in the series' tables",
)
# Attaching reads all of it, so there is no question left to put: marking takes the
# pages from there.
SYMBOLS = area(
    "symbols", "kallsyms, BTF and unwind tables of the kernel itself", packed=True
)
