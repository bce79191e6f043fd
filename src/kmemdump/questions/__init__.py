# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be asked of a kernel, and how."""
