# SPDX-License-Identifier: GPL-2.0-or-later
"""kallsyms, BTF and unwind tables, so that the core image needs no other file."""

from kmemdump.areas.area import area

__all__ = ["SYMBOLS"]

# Attaching reads all of it, so there is no question left to put: marking takes the
# pages from there.
SYMBOLS = area(
    "symbols", "kallsyms, BTF and unwind tables of the kernel itself", packed=True
)
