# SPDX-License-Identifier: GPL-2.0-or-later
"""A watch is asked while it runs: the control socket, and what is asked of workers."""
