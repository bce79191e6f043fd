# SPDX-License-Identifier: GPL-2.0-or-later
"""
After the crash: what firmware left, or a device holds, becomes a core image.

:mod:`source` opens what a person names, :mod:`sahara` downloads from a device, and
:mod:`write` writes the core image.
"""
