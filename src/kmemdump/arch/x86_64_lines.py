# SPDX-License-Identifier: GPL-2.0-or-later
"""What VMCOREINFO says of addresses on x86-64, out of a kernel that has none."""

from __future__ import annotations

from collections.abc import Iterator

from kmemdump.arch.kernel_image import KernelImage
from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.memory.ranges import ADDRESS_SPACE

__all__ = ["IMAGE_SYMBOLS", "address_lines"]

IMAGE_SYMBOLS: tuple[str, ...] = (
    "boot_params",
    "init_top_pgt",
    "kernel_randomize_memory",
    "phys_base",
    "sme_me_mask",
    "swapper_pg_dir",
    "vmalloc_base",
    "page_offset_base",
)
"""Symbols that :func:`address_lines` needs, or makes use of."""

_IMAGE_MAP = 0xFFFFFFFF80000000  # __START_KERNEL_map
_DIRECT_MAPS = (0xFFFF888000000000, 0xFF11000000000000)
"""Where they start without KASLR, with page tables of 4 and of 5 levels."""
_IMAGE_SIZE = 512 << 20  # KERNEL_IMAGE_SIZE without CONFIG_RANDOMIZE_BASE.
_4G = 1 << 32
_ADDRESS = ((1 << 52) - 1) & -4096

# Linux Documentation/arch/x86/boot.rst and zero-page.rst.
_BOOT_PARAMS = 4096
_HEADER_MAGIC = 0x202
_PREF_ADDRESS = 0x258
"""Of LOAD_PHYSICAL_ADDR, which the image is linked for."""
_PHYSICAL_START = 16 << 20
"""Usual CONFIG_PHYSICAL_START, where no boot loader left a header."""

_PHYSICAL_BITS = (46, 52)
"""MAX_PHYSMEM_BITS with page tables of 4 and of 5 levels."""


def address_lines(image: KernelImage) -> Iterator[dict[str, str]]:
    """See :meth:`kmemdump.arch.architecture.Arch.address_lines`."""
    text, table = image.symbol("_text"), image.symbol("init_top_pgt")
    physical = image.value("phys_base")
    if (
        physical is None
        or not _IMAGE_MAP <= text < ADDRESS_SPACE
        or image.symbol("_stext") != text  # arch/x86/kernel/vmlinux.lds.S
    ):
        raise FormatError(image.source, "not the image of a kernel of x86_64")
    lines = {
        "PAGESIZE": "4096",
        "SYMBOL(swapper_pg_dir)": f"{table:x}",
        "NUMBER(phys_base)": str(physical - (physical >> 63 << 64)),
        "SYMBOL(init_top_pgt)": f"{table:x}",
    }
    # CONFIG_RANDOMIZE_BASE doubles the room for the image.
    moved = _kaslr_offset(image, text)
    randomized = (
        moved > 0
        or "kernel_randomize_memory" in image.symbols
        or image.value("page_offset_base") not in (None, *_DIRECT_MAPS)
    )
    lines |= {
        "KERNELOFFSET": f"{moved:x}",
        "NUMBER(KERNEL_IMAGE_SIZE)": str(_IMAGE_SIZE << randomized),
        "NUMBER(sme_mask)": str(_sme_mask(image, table)),
    }
    for five_levels, bits in enumerate(_PHYSICAL_BITS):
        yield lines | {
            "NUMBER(pgtable_l5_enabled)": str(five_levels),
            "NUMBER(MAX_PHYSMEM_BITS)": str(bits),
        }


def _sme_mask(image: KernelImage, table: int) -> int:
    """Return the bit of encrypted memory, if the page table's entries have it."""
    mask = image.value("sme_me_mask") or 0
    try:
        last = int.from_bytes(image.read(table + 511 * 8, 8), "little")
    except NotCapturedError:
        return 0
    is_bit = _4G <= mask <= _ADDRESS and not mask & (mask - 1)
    return mask if is_bit and last & mask else 0


def _kaslr_offset(image: KernelImage, text: int) -> int:
    """Return how far an image was moved from the address that it was linked for."""
    linked = _PHYSICAL_START
    try:
        params = image.read(image.symbol("boot_params"), _BOOT_PARAMS)
    except (FormatError, NotCapturedError):
        params = bytes(_BOOT_PARAMS)
    if params[_HEADER_MAGIC : _HEADER_MAGIC + 4] == b"HdrS":
        linked = int.from_bytes(params[_PREF_ADDRESS : _PREF_ADDRESS + 8], "little")
    return max(text - _IMAGE_MAP - linked, 0)
