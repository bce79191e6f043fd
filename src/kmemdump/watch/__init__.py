# SPDX-License-Identifier: GPL-2.0-or-later
"""Watching VMs: mark them while they run, and write a core image when one dies."""

from kmemdump.watch.events import Event, EventName
from kmemdump.watch.settings import Settings, VmAction
from kmemdump.watch.supervisor import Supervisor
from kmemdump.watch.watcher import Outcome

__all__ = [
    "Event",
    "EventName",
    "Outcome",
    "Settings",
    "Supervisor",
    "VmAction",
]
