# SPDX-License-Identifier: GPL-2.0-or-later
"""Differences between architectures: registers, page tables, place of the image."""
