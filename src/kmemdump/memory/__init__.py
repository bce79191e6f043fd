# SPDX-License-Identifier: GPL-2.0-or-later
"""Physical memory: its ranges, how to read it, and a record of the reads."""
