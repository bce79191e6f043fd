# SPDX-License-Identifier: GPL-2.0-or-later
"""Other people's debuggers: which can open a file, and how they are started."""

from kmemdump.debuggers.compatibility import Debugger, Opened, find_debuggers, look_at
from kmemdump.debuggers.vmlinux import find_vmlinux

__all__ = ["Debugger", "Opened", "find_debuggers", "find_vmlinux", "look_at"]
