# SPDX-License-Identifier: GPL-2.0-or-later
"""
After the crash: what firmware left, or a device holds, becomes a core image.

:mod:`device` downloads a device, :mod:`source` opens what a user names, and
:mod:`write` writes the core image.
"""
