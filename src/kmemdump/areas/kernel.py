# SPDX-License-Identifier: GPL-2.0-or-later
"""Regions that the kernel registered; see :mod:`kmemdump.kernel.registered_regions`."""

from kmemdump.areas.area import area

__all__ = ["KERNEL"]

# Marking reads the tables itself, since each of their regions keeps its name.
KERNEL = area(
    "kernel",
    "regions that drivers registered: with module kmemdump, or in the series' tables",
)
