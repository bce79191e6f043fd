# SPDX-License-Identifier: GPL-2.0-or-later
"""Find the kernel in a memory: by its VMCOREINFO, or by what it contains."""
