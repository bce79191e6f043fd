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
from kmemdump.kernel_search.notes import uts_name_offset
from kmemdump.memory.physical import Memory
from kmemdump.memory.ranges import Range
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["complete"]

logger = logging.getLogger(__name__)

_MAX_IMAGE = 256 << 20
"""Bytes from the start of the image in which its symbols are looked for."""
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
        if not _has_kallsyms(info, memory):
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
        return True  # What is missing cannot be found elsewhere in the memory.


def _find_kallsyms(info: VmcoreInfo, memory: Memory) -> dict[str, str]:
    arch = arch_from_info(info)
    image = arch.image(info)
    part = Range(image.physical, min(image.size, _MAX_IMAGE))
    for found in search_kallsyms(PartOfMemory(memory, part), info.source):
        lines = _prove(info, arch, found)
        if lines:
            return lines
    return {}


def _prove(info: VmcoreInfo, arch: Arch, found: FoundKallsyms) -> dict[str, str]:
    """Return the lines about tables by which symbols are where *info* says."""
    start = info.symbol("_stext")
    shift = start - arch.image_address(info, start)
    expected = {name: info.symbol(name) for name in _KNOWN}
    for addresses in found.tables.addresses():
        symbols = found.symbols(addresses, _KNOWN, shift)
        if "_stext" in symbols and all(
            expected[name] in values for name, values in symbols.items()
        ):
            places = found.places(addresses, shift)
            return {f"SYMBOL({name})": f"{at:x}" for name, at in places.items()}
    return {}
