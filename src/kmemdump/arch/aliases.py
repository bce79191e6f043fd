# SPDX-License-Identifier: GPL-2.0-or-later
"""The virtual addresses at which a kernel maps captured memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kmemdump.arch.architecture import Arch
from kmemdump.arch.pagetable import walk
from kmemdump.memory.ranges import Alias, Range, clip, merge
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["find_kernel_aliases"]


def find_kernel_aliases(
    arch: Arch,
    info: VmcoreInfo,
    read: Callable[[int, int], bytes],
    captured: Iterable[Range],
    direct: Alias | None,
) -> list[Alias]:
    """
    Find the aliases of captured memory, except those of the direct map.

    :param read: Reads (physical address, size) of page tables: the more it can read,
        the more aliases are found.
    :param captured: The physical memory.
    :param direct: The direct map.
    :return: Sorted by virtual address.
    :raises NotCapturedError: If *info* lacks the kernel's address.
    """
    wanted = merge(captured)
    skip = [Range(direct.virtual, direct.size)] if direct else []
    mapped = walk(arch.page_table(info), read, skip)
    found = clip(mapped, wanted)
    image = arch.image(info)
    end = image.virtual + image.size
    if not any(image.virtual <= alias.virtual < end for alias in found):
        # The image's page tables are missing, but it is mapped linearly.
        found.extend(clip([image], wanted))
        found.sort()
    return found
