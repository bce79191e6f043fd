# SPDX-License-Identifier: GPL-2.0-or-later
"""Watching VMs: mark them while they run, and take a core image when one dies."""

from kmemdump.watch.settings import Settings, Then
from kmemdump.watch.supervisor import Report, watch_fleet
from kmemdump.watch.watcher import Outcome

__all__ = ["Outcome", "Report", "Settings", "Then", "watch_fleet"]
