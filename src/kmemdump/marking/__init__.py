# SPDX-License-Identifier: GPL-2.0-or-later
"""Marking a kernel: what capture, watch, mark and the agent share."""
