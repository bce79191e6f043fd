# SPDX-License-Identifier: GPL-2.0-or-later
"""What differs between architectures: registers, page tables, where the image is."""
