# SPDX-License-Identifier: GPL-2.0-or-later
"""
After the crash: make a core image of what firmware left, or a device holds.

:mod:`device` downloads a device, :mod:`source` opens what a user names, and
:mod:`write` writes the core image.
"""
