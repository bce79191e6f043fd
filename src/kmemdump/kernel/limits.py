# SPDX-License-Identifier: GPL-2.0-or-later
"""
Limits on the number of things in a kernel.

The kernel may be dead and its memory damaged, so longer lists are cut off.
"""

from __future__ import annotations

__all__ = ["MAX_CPUS", "MAX_INTERRUPTS", "MAX_MODULES", "MAX_TASKS"]

MAX_CPUS = 8192
"""The largest NR_CPUS of x86_64 and aarch64."""
MAX_INTERRUPTS = 1 << 16
MAX_MODULES = 4096
MAX_TASKS = 1 << 17
