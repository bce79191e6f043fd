# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent: stays on a machine, and keeps its regions registered and fresh."""
