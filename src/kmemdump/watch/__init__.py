# SPDX-License-Identifier: GPL-2.0-or-later
"""Watching VMs: mark them while they run, and write a core image when one dies."""

from kmemdump.watch.reporter import Message
from kmemdump.watch.settings import Settings, VmAction
from kmemdump.watch.supervisor import name_vms, watch_vms
from kmemdump.watch.watcher import Outcome

__all__ = [
    "Message",
    "Outcome",
    "Settings",
    "VmAction",
    "name_vms",
    "watch_vms",
]
