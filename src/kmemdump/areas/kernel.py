# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel marked itself; see :mod:`kmemdump.kernel.kernel_tables`."""

from kmemdump.areas.area import area

__all__ = ["KERNEL"]

# Marking looks at the tables itself, since each mark is a region with its own name.
KERNEL = area(
    "kernel",
    "what the kernel's own drivers marked: module kmemdump, or the series' tables",
)
