# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps that firmware left after a crash, as targets: files, an image, or a table."""
