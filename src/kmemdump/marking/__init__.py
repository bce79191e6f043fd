# SPDX-License-Identifier: GPL-2.0-or-later
"""Mark a kernel: the code that capture, watch, mark and the agent share."""
