# SPDX-License-Identifier: GPL-2.0-or-later
"""The crash kernel that copies the regions: what it runs, and whether it is there."""
