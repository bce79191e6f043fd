# SPDX-License-Identifier: GPL-2.0-or-later
"""Questions to a kernel, and ways to put them."""
