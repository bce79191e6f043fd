# SPDX-License-Identifier: GPL-2.0-or-later
"""Other debuggers: which can open a file, and how to start them."""
