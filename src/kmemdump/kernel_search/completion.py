# SPDX-License-Identifier: GPL-2.0-or-later
"""
Complete a VMCOREINFO that lacks lines, or has lines that are not right.

What is added is proven by the kernel's memory. A VMCOREINFO that is whole stays as the
kernel wrote it.
"""

from __future__ import annotations

import logging

from kmemdump.arch.architecture import Arch, arch_from_info
from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.kernel_search.kallsyms import (
    FoundKallsyms,
    PartOfMemory,
    is_proven,
    search_kallsyms,
)
from kmemdump.kernel_search.notes import is_present, uts_name_offset
from kmemdump.memory.physical import Memory
from kmemdump.memory.ranges import Range
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["complete"]

logger = logging.getLogger(__name__)

_MAX_IMAGE = 256 << 20
"""Bytes from the start of the image in which its symbols are looked for."""
_BEFORE_DATA = 128 << 20
_KALLSYMS = ("names", "num_syms", "token_table", "token_index", "offsets")
_KNOWN = ("_stext", "init_uts_ns")
"""Symbols that every VMCOREINFO has, by which those of kallsyms are proven."""


def complete(info: VmcoreInfo, memory: Memory) -> VmcoreInfo:
    """
    Return *info* with the lines that it lacks and that *memory* proves.

    Without kallsyms there are neither symbols nor types. Kernels write their addresses
    since Linux kernel commits 5fd8fea935a1 ("vmcoreinfo: include kallsyms symbols") and
    f09bddbd8661 ("vmcoreinfo: add kallsyms_num_syms symbol") (in v6.0).

    :param memory: The memory of the kernel that *info* describes.
    """
    lines: dict[str, str] = {}
    try:
        if not _has_kallsyms(info, memory) and is_present(info, memory):
            lines |= _find_kallsyms(info, memory)
        if "OFFSET(uts_namespace.name)" not in info.values:
            lines["OFFSET(uts_namespace.name)"] = str(uts_name_offset(info, memory))
    except (FormatError, NotCapturedError) as error:
        logger.debug("%s: cannot be completed: %s", info.source, error)
    if not lines:
        return info
    logger.info("%s: completed with %s", info.source, ", ".join(lines))
    return info.with_lines(lines)


def _has_kallsyms(info: VmcoreInfo, memory: Memory) -> bool:
    """Return whether the lines about kallsyms are there, and not known to be wrong."""
    if not all(f"SYMBOL(kallsyms_{name})" in info.values for name in _KALLSYMS):
        return False
    try:
        return is_proven(info, memory)
    except NotCapturedError:
        return False  # A line is wrong, or the memory lacks the tables.


def _find_kallsyms(info: VmcoreInfo, memory: Memory) -> dict[str, str]:
    arch = arch_from_info(info)
    image = arch.image(info)
    data = arch.image_address(info, info.symbol("init_uts_ns"))
    for part in (
        Range(image.physical, min(image.size, _MAX_IMAGE)),
        # If _stext is wrong, too: data follows the text and the constants.
        Range(max(data - _BEFORE_DATA, 0), _BEFORE_DATA),
    ):
        for found in search_kallsyms(PartOfMemory(memory, part), info.source):
            lines = _prove(info, arch, found)
            if lines:
                return lines
    return {}


def _prove(info: VmcoreInfo, arch: Arch, found: FoundKallsyms) -> dict[str, str]:
    """Return the lines about tables by which symbols are where *info* says."""
    start = info.symbol("init_uts_ns")
    shift = start - arch.image_address(info, start)
    for addresses in found.tables.addresses():
        symbols = found.symbols(addresses, _KNOWN, shift)
        stext = symbols.get("_stext", set())
        # Where init_uts_ns is, memory shows. Kallsyms may have functions only.
        if start in symbols.get("init_uts_ns", set()) or (
            "init_uts_ns" not in symbols and info.symbol("_stext") in stext
        ):
            places = found.places(addresses, shift)
            if stext and min(places.values()) < min(stext):
                continue  # Constants follow the text: another image's tables.
            lines = {f"SYMBOL({name})": f"{at:x}" for name, at in places.items()}
            if len(stext) == 1 and info.symbol("_stext") not in stext:
                lines["SYMBOL(_stext)"] = f"{next(iter(stext)):x}"
            return lines
    return {}
