# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m kmemdump``."""

from kmemdump.start import run

run()
