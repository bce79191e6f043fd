# SPDX-License-Identifier: GPL-2.0-or-later
"""
What kmemdump costs, with the figures of what people use today beside it.

``make bench`` runs it. Everything is measured from outside, as whole processes on a
real kernel in QEMU, and nothing is asserted: the reader judges.
"""
