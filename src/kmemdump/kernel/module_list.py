# SPDX-License-Identifier: GPL-2.0-or-later
"""
Find the list of modules in a kernel's image, where no symbol says where it is.

A list's head is a pair of pointers, to the first and to the last member, and each of
those points back to it. A module points to itself, from its kobject (struct
module_kobject in include/linux/module.h).
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Callable, Iterator

from kmemdump.arch.architecture import arch_from_info
from kmemdump.arch.pagetable import translate
from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.formats.btf import Btf, BtfKind
from kmemdump.memory.physical import Memory
from kmemdump.memory.ranges import ADDRESS_SPACE
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["find_module_list"]

_REACH = 4 << 20
"""Bytes around another variable of the same section in which it is looked for."""
_KERNEL = 1 << 63
_MAX_CANDIDATES = 1 << 16


def find_module_list(
    info: VmcoreInfo, memory: Memory, start: int, image: bytes, near: int, btf: Btf
) -> int | None:
    """
    Return the address of the head of the list of modules.

    :param start: Virtual address of *image*, the kernel's image.
    :param near: Address of a variable with an initial value.
    :return: ``None`` if it is not found, or if no module is loaded.
    """
    places = _members(btf, "module", "list", "mkobj")
    inner = _members(btf, "module_kobject", "mod")
    if places is None or inner is None:
        return None
    in_list, in_kobject = places[0], places[1] + inner[0]
    read = _reader(info, memory)
    found = {
        head
        for head, first, last in _heads(image, start, near)
        if read(first + 8) == head
        and read(last) == head
        and read(first - in_list + in_kobject) == first - in_list
        and read(last - in_list + in_kobject) == last - in_list
    }
    return found.pop() if len(found) == 1 else None


def _members(btf: Btf, name: str, *wanted: str) -> list[int] | None:
    """Return the offsets of members of a structure in bytes."""
    type_id = btf.find(name, {BtfKind.STRUCT})
    if type_id is None:
        return None
    offsets = {it.name: it.bit_offset // 8 for it in btf.members(btf.type(type_id))}
    if not offsets.keys() >= {*wanted}:
        return None
    return [offsets[it] for it in wanted]


def _heads(image: bytes, start: int, near: int) -> Iterator[tuple[int, int, int]]:
    """Yield what may be heads of lists, whose members are not in the image."""
    first = max(near - start - _REACH, 0) & -8
    words = array("Q", image[first : (near - start + _REACH) & -8])
    if sys.byteorder == "big":
        words.byteswap()
    end, count = start + len(image), 0
    for i in range(len(words) - 1):
        one, other = words[i], words[i + 1]
        if (
            one >= _KERNEL <= other
            and not (one | other) & 7
            and not start <= one < end
            and not start <= other < end
        ):
            yield start + first + 8 * i, one, other
            count += 1
            if count == _MAX_CANDIDATES:
                return


def _reader(info: VmcoreInfo, memory: Memory) -> Callable[[int], int | None]:
    """Return a function that reads a word of virtual memory, if it is there."""
    table = arch_from_info(info).page_table(info)

    def read(address: int) -> int | None:
        try:
            physical = translate(table, memory.read, address % ADDRESS_SPACE)
            if physical is None:
                return None
            word: int = struct.unpack("<Q", memory.read(physical, 8))[0]
            return word
        except (FormatError, NotCapturedError):
            return None

    return read
