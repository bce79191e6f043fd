# SPDX-License-Identifier: GPL-2.0-or-later
"""Other debuggers that can open a file, and how to start them."""
