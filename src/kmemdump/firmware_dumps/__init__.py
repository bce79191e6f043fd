# SPDX-License-Identifier: GPL-2.0-or-later
"""What firmware left after a crash, as a target: files, an image, or a table."""
