# SPDX-License-Identifier: GPL-2.0-or-later
"""
Android's ``debug_kinfo``: addresses of kernel tables, for tools that read its RAM.

There are four layouts without a version number; one of them can be read in two ways.
The checksum does not distinguish them, because zeros at the end do not change it. So
the contents decide.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import reduce
from itertools import pairwise
from operator import xor

from kmemdump.errors import FormatError
from kmemdump.text import c_string

__all__ = [
    "ADDRESSES",
    "KINFO_MAGIC",
    "Kinfo",
    "KinfoLayout",
    "fields_of",
    "pack_kinfo",
    "parse_kinfo",
]

KINFO_MAGIC = 0xCCEEDDFF

_CHECKED_FROM = 8  # The checksum covers all words after it.

_TEXT = ("_text", "_stext", "_etext", "_sinittext", "_einittext", "_end")
_TABLES = (
    "kallsyms_offsets",
    "kallsyms_names",
    "kallsyms_token_table",
    "kallsyms_token_index",
    "kallsyms_markers",
)
_SEQS = "kallsyms_seqs_of_names"
_RELATIVE = "kallsyms_relative_base"
_ABSOLUTE = "kallsyms_addresses"
_PAGE_TABLE = "swapper_pg_dir"

ADDRESSES = (_ABSOLUTE, _RELATIVE, *_TEXT, *_TABLES, _SEQS, _PAGE_TABLE)
"""Kernel symbols whose physical addresses a kinfo may hold; no layout has all."""


class KinfoLayout(Enum):
    """The kernel that wrote it, in a reader's order of preference."""

    SERIES = "series"
    """The kernel's kmemdump series up to meminspect v2; 472 bytes."""
    MEMINSPECT_V3 = "meminspect-v3"
    """Without build information; 216 bytes."""
    ANDROID = "android"
    """Android's common kernel: like the series, with other first addresses."""
    ANDROID_V2 = "android-v2"
    """Like :attr:`ANDROID_V1`, with more at the end; 504 bytes."""
    ANDROID_V1 = "android-v1"
    """An older Android tree; 464 bytes."""


@dataclass(frozen=True, slots=True)
class _Layout:
    before: tuple[str, ...]
    """Addresses in their order, without the page table."""
    build_info: bool = True
    after: tuple[str, ...] = ()
    reserved: int = 0

    @property
    def struct(self) -> struct.Struct:
        build_info = "256s" if self.build_info else ""
        return struct.Struct(
            f"<II4BI4H{len(self.before)}QIQ64s{build_info}3I"
            f"{len(self.after)}Q{8 * self.reserved}x"
        )


_V1 = (_ABSOLUTE, _RELATIVE, *_TEXT[1:], *_TABLES)
_LAYOUTS = {
    KinfoLayout.SERIES: _Layout((_RELATIVE, *_TEXT, *_TABLES, _SEQS)),
    KinfoLayout.MEMINSPECT_V3: _Layout((_RELATIVE, *_TEXT, *_TABLES, _SEQS), False),
    KinfoLayout.ANDROID: _Layout((*_V1, _SEQS)),
    KinfoLayout.ANDROID_V2: _Layout(_V1, after=(_SEQS,), reserved=4),
    KinfoLayout.ANDROID_V1: _Layout(_V1),
}


@dataclass(frozen=True, slots=True)
class Kinfo:
    """The contents of a ``debug_kinfo``."""

    layout: KinfoLayout
    addresses: Mapping[str, int]
    """Kernel symbol to physical address; 0 where it is not filled in."""
    num_syms: int = 0
    """Symbols in kallsyms."""
    thread_size: int = 0
    """Size of a kernel stack in bytes."""
    release: str = ""
    build_info: str = ""
    flags: tuple[int, int, int, int] = (0, 0, 0, 0)
    """KALLSYMS_ALL, _BASE_RELATIVE, _ABSOLUTE_PERCPU, CFI_CLANG."""
    lengths: tuple[int, int, int, int] = (0, 64, 0, 0)
    """KSYM_NAME_LEN, BITS_PER_LONG, MODULE_NAME_LEN, KSYM_SYMBOL_LEN."""
    modules: tuple[int, int, int] = (0, 0, 0)
    """MODULES_TREE_LOOKUP; offsets of ``mem`` and ``kallsyms`` in struct module."""
    checksum_ok: bool = field(default=True, compare=False)
    """Also false if the kernel died during a change."""

    @property
    def is_base_relative(self) -> bool:
        """Whether kallsyms' offsets are relative to a base."""
        return bool(self.flags[1])


def parse_kinfo(data: bytes, source: str) -> Kinfo:
    """
    Parse a ``debug_kinfo`` region, whichever layout it has.

    :param data: The region; may be longer than the structure.
    :raises FormatError: If the magic number is wrong, or no layout fits.
    """
    if len(data) < 8 or struct.unpack_from("<I", data)[0] != KINFO_MAGIC:
        raise FormatError(
            source,
            f"starts with {data[:4].hex(' ')}, expected ff dd ee cc (debug_kinfo)",
        )
    best: tuple[int, Kinfo] | None = None
    for layout, table in _LAYOUTS.items():
        if table.struct.size > len(data):
            continue
        found, clean = _unpack(data, layout)
        points = _plausibility(found, clean)
        if points is not None and (best is None or points > best[0]):
            best = points, found
    if best is None:
        raise FormatError(
            source,
            f"{len(data)} bytes fit none of the {len(_LAYOUTS)} layouts of debug_kinfo",
        )
    return best[1]


def fields_of(layout: KinfoLayout) -> tuple[str, ...]:
    """Return the kernel symbols that a layout has a field for."""
    table = _LAYOUTS[layout]
    return (*table.before, *table.after, _PAGE_TABLE)


def pack_kinfo(kinfo: Kinfo) -> bytes:
    """
    Return the bytes of a ``debug_kinfo``, with its checksum.

    :raises FormatError: If a value does not fit the layout.
    """
    table = _LAYOUTS[kinfo.layout]
    unknown = set(kinfo.addresses) - {*fields_of(kinfo.layout)}
    if unknown:
        raise FormatError(
            f"debug_kinfo of layout {kinfo.layout.value}",
            f"has no field for {', '.join(sorted(unknown))}",
        )
    get: Callable[[str], int] = lambda name: kinfo.addresses.get(name, 0)  # noqa: E731
    texts = [kinfo.release.encode()[:63]]
    if table.build_info:
        texts.append(kinfo.build_info.encode()[:255])
    try:
        data = table.struct.pack(
            KINFO_MAGIC,
            0,
            *kinfo.flags,
            kinfo.num_syms,
            *kinfo.lengths,
            *map(get, table.before),
            kinfo.thread_size,
            get(_PAGE_TABLE),
            *texts,
            *kinfo.modules,
            *map(get, table.after),
        )
    except struct.error as error:
        raise FormatError("debug_kinfo", str(error)) from None
    return data[:4] + struct.pack("<I", _checksum(data)) + data[8:]


def _checksum(data: bytes) -> int:
    count = (len(data) - _CHECKED_FROM) // 4
    words = struct.unpack_from(f"<{count}I", data, _CHECKED_FROM)
    return reduce(xor, words, 0)


def _unpack(data: bytes, layout: KinfoLayout) -> tuple[Kinfo, bool]:
    """Return the values in a layout, and whether only zeros follow its texts."""
    table = _LAYOUTS[layout]
    whole = data[: table.struct.size]
    values = list(table.struct.unpack(whole))
    take: Callable[[int], list[int]] = lambda count: [  # noqa: E731
        values.pop(0) for _ in range(count)
    ]
    _, checksum = take(2)
    flags = take(4)
    (num_syms,) = take(1)
    lengths = take(4)
    addresses = dict(zip(table.before, take(len(table.before)), strict=True))
    thread_size, addresses[_PAGE_TABLE] = take(2)
    release: bytes = values.pop(0)
    build_info: bytes = values.pop(0) if table.build_info else b""
    modules = take(3)
    addresses.update(zip(table.after, take(len(table.after)), strict=True))
    clean = not any(
        raw.partition(b"\0")[2].strip(b"\0") for raw in (release, build_info)
    )
    found = Kinfo(
        layout,
        addresses,
        num_syms,
        thread_size,
        c_string(release),
        c_string(build_info),
        (flags[0], flags[1], flags[2], flags[3]),
        (lengths[0], lengths[1], lengths[2], lengths[3]),
        (modules[0], modules[1], modules[2]),
        checksum == _checksum(whole),
    )
    return found, clean


def _plausibility(found: Kinfo, clean: bool) -> int | None:
    """Return how well a layout fits; ``None`` if it cannot fit."""
    if found.lengths[1] != 64:  # Bits per long.
        return None
    release = found.release
    points = 0
    if release:
        if not (
            release[0].isdigit() and release.isprintable() and "\\x" not in release
        ):
            return None
        points += 4
    if not all(offset < 1 << 16 for offset in found.modules[1:]):
        return None
    points += (found.modules[0] in (0, 1)) + 2 * all(found.modules[1:]) + 4 * clean
    if _LAYOUTS[found.layout].after and not found.addresses[_SEQS]:
        points -= 1  # The longer layout's fields are not there.
    if not found.addresses.get("_text", 1):
        points -= 1  # Every kernel has one: it is the layout without such a field.
    if not found.build_info.isprintable():
        return None
    if found.thread_size & (found.thread_size - 1) or found.thread_size > 1 << 20:
        return None
    points += 2 * found.checksum_ok
    return points + _count_ordered(found)


def _count_ordered(found: Kinfo) -> int:
    """Count the neighbours that are in the order of a kernel image."""
    get = found.addresses.get
    order = [get(name, 0) for name in ("_text", "_stext", "_etext")]
    order += [get(f"kallsyms_{name}", 0) for name in ("names", "markers")]
    order += [get(f"kallsyms_{name}", 0) for name in ("token_table", "token_index")]
    filled = [address for address in order if address]
    right = sum(a <= b for a, b in pairwise(filled))
    wrong = max(len(filled) - 1, 0) - right
    # The tables are in read-only data, after the text, and so is the base; in the
    # other reading of the same layout it would be _text.
    for name in (_RELATIVE, _ABSOLUTE):
        address, text = get(name, 0), get("_stext", 0)
        if address and text:
            right, wrong = right + (address > text), wrong + (address <= text)
    return right - 2 * wrong
