# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes that look at foreign memory, and limits that hold even in C code."""
