# SPDX-License-Identifier: GPL-2.0-or-later
"""
Measure what kmemdump costs, beside the tools that people use today.

``make bench`` runs it. Everything is measured from outside, as whole processes on a
real kernel in QEMU, and nothing is asserted: the reader judges.
"""
