# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel log, in the static or the dynamic buffer."""

from kmemdump.areas.area import area

__all__ = ["KMSG"]

KMSG = area(
    "kmsg",
    "the kernel log",
    # Reads the descriptors, the infos and the text whole, so that later records
    # are covered, too.
    "log",
    variables=("prb", "printk_rb_static", "clear_seq", "log_buf", "log_buf_len"),
)
