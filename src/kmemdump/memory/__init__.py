# SPDX-License-Identifier: GPL-2.0-or-later
"""Physical memory: ranges of it, where it can be read, and what was read of it."""
