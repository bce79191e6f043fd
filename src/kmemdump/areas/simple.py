# SPDX-License-Identifier: GPL-2.0-or-later
"""Areas that drgn's crash commands cover by themselves."""

from kmemdump.areas.area import area

__all__ = ["DEVICES", "MOUNTS", "NET", "TIMERS"]

MOUNTS = area("mounts", "mounted file systems", "mount")
TIMERS = area("timers", "pending timers", "timer")
NET = area("net", "network interfaces", "net")
DEVICES = area("devices", "character and block devices", "dev")
