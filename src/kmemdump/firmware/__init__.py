# SPDX-License-Identifier: GPL-2.0-or-later
"""Where firmware keeps its tables in a machine's memory, and what they say."""
