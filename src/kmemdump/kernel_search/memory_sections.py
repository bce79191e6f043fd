# SPDX-License-Identifier: GPL-2.0-or-later
"""VMCOREINFO's lines about sections of memory (CONFIG_SPARSEMEM), from content."""

from __future__ import annotations

from kmemdump.arch.kernel_image import KernelImage
from kmemdump.formats.btf_layout import BtfLayout
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["section_lines"]

_KERNEL = 1 << 63
_SECTION_BITS = (27, 29, 30)
"""Usual; with pages of 64 KiB; and with others before v5.12."""


def section_lines(
    image: KernelImage, layout: BtfLayout, info: VmcoreInfo
) -> dict[str, str]:
    """
    Return the lines about sections; none if the kernel has no sections.

    :param info: Has the size of pages, and the bits of physical addresses.
    """
    size, page_size = layout.size("mem_section"), info.page_size
    table = image.value("mem_section")
    last, end = image.value("__highest_present_section_nr"), image.value("max_pfn")
    if not size or table is None or table < _KERNEL or last is None or not end:
        return {}
    per_root = page_size // size  # CONFIG_SPARSEMEM_EXTREME
    page_shift = page_size.bit_length() - 1
    usual = 29 if page_shift == 16 else 27
    bits = next(
        (
            it
            for it in sorted(_SECTION_BITS, key=lambda it: it != usual)
            if (end - 1) >> (it - page_shift) == last
        ),
        None,
    )
    if bits is None or not per_root:
        return {}
    physical = info.number("MAX_PHYSMEM_BITS")
    return {
        "SYMBOL(mem_section)": f"{table:x}",
        "LENGTH(mem_section)": str(-(-(1 << (physical - bits)) // per_root)),
        "NUMBER(SECTION_SIZE_BITS)": str(bits),
    }
