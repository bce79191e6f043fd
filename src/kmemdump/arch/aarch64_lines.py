# SPDX-License-Identifier: GPL-2.0-or-later
"""What VMCOREINFO says of addresses on AArch64, out of a kernel that has none."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from kmemdump.arch.kernel_image import KernelImage
from kmemdump.errors import FormatError
from kmemdump.memory.ranges import ADDRESS_SPACE

__all__ = ["IMAGE_SYMBOLS", "address_lines", "least_va_bits", "page_end"]

IMAGE_SYMBOLS: tuple[str, ...] = (
    "__kaslr_is_enabled",
    "kimage_voffset",
    "memstart_addr",
    "module_direct_base",
    "module_plt_base",
    "swapper_pg_dir",
)
"""Symbols that :func:`address_lines` needs, or makes use of."""

_PAGE = 4096
_PAGE_SHIFTS = (12, 14, 16)
_VA_BITS = (
    *((48, 48), (39, 39), (47, 47), (42, 42), (36, 36)),
    *((52, 48), (52, 47), (52, 52)),
)
"""Bits of virtual addresses: as configured (ARM64_VA_BITS), and as used on the CPU."""

_PHYSICAL_BITS = 48
"""Usual CONFIG_ARM64_PA_BITS. A larger one lengthens the table of sections only."""


def address_lines(image: KernelImage) -> Iterator[dict[str, str]]:
    """See :meth:`kmemdump.arch.architecture.Arch.address_lines`."""
    text, table = image.symbol("_text"), image.symbol("swapper_pg_dir")
    offset, start = image.value("kimage_voffset"), image.value("memstart_addr")
    # The head is a page, or as large as a segment's alignment
    # (arch/arm64/kernel/vmlinux.lds.S).
    head = image.symbol("_stext") - text
    is_head = head >= _PAGE and not head & (head - 1)
    if offset is None or start is None or not is_head:
        raise FormatError(image.source, "not the image of a kernel of aarch64")
    for page_shift, (configured, actual) in product(_PAGE_SHIFTS, _VA_BITS):
        least = least_va_bits(configured, page_shift)
        if actual < least:
            continue
        direct = (text - offset - start - (1 << configured)) % ADDRESS_SPACE
        if not ADDRESS_SPACE - (1 << actual) <= direct < page_end(least):
            continue
        modules = page_end(least) + _modules_size(image)
        moved = text - modules
        if image.value("__kaslr_is_enabled", 1) == 0:
            moved = 0
        mask = ADDRESS_SPACE - (1 << actual)
        yield {
            "PAGESIZE": str(1 << page_shift),
            "SYMBOL(swapper_pg_dir)": f"{table:x}",
            "NUMBER(VA_BITS)": str(configured),
            "NUMBER(MODULES_VADDR)": f"{page_end(least):#x}",
            "NUMBER(MODULES_END)": f"{text - max(moved, 0):#x}",
            "NUMBER(kimage_voffset)": f"{offset:#x}",
            "NUMBER(PHYS_OFFSET)": f"{start:#x}",
            "NUMBER(TCR_EL1_T1SZ)": f"{64 - actual:#x}",
            "KERNELOFFSET": f"{max(moved, 0):x}",
            "NUMBER(MAX_PHYSMEM_BITS)": str(_PHYSICAL_BITS),
            # Right, too, if the CPU does not sign return addresses.
            "NUMBER(KERNELPACMASK)": f"{mask:#x}",
        }


def least_va_bits(configured: int, page_shift: int) -> int:
    """
    Return ``VA_BITS_MIN``, which sets the layout on every CPU.

    It is less than ``VA_BITS`` only above 48 (arch/arm64/include/asm/memory.h).
    """
    if configured <= 48:
        return configured
    return 47 if page_shift == 14 else 48


def page_end(va_bits: int) -> int:
    """Return ``_PAGE_END(va_bits)``, where the direct map ends."""
    return ADDRESS_SPACE - (1 << (va_bits - 1))


def _modules_size(image: KernelImage) -> int:
    """Return the room for modules before the place that the image is linked for."""
    # Linux kernel commit 3e35d303ab7d ("arm64: module: rework module VA range
    # selection") (in v6.5) brought these variables, and 2 GiB instead of 128 MiB.
    is_new = {"module_direct_base", "module_plt_base"} & image.symbols.keys()
    return 2 << 30 if is_new else 128 << 20
