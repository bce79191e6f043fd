# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: one file for each verb, and no logic."""

from kmemdump.cli.main import main

__all__ = ["main"]
