# SPDX-License-Identifier: GPL-2.0-or-later
"""
Kallsyms as scripts/kallsyms.c of each era writes them, without the parser's tables.

Their order: until v6.1, v6.2 to v6.3 (with the order of names), v6.4 to v6.19, and
since v7.0, when addresses became relative to their own place.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

OLD = ("offsets", "base", "count", "names", "markers", "tokens", "index")
SORTED = ("offsets", "base", "count", "names", "markers", "order", "tokens", "index")
NEW = ("count", "names", "markers", "tokens", "index", "offsets", "base", "order")
PLACE = ("count", "names", "markers", "tokens", "index", "offsets", "order")

_WORDS = ("init", "sched", "read", "kmem", "_set", "get_", "per_", "vfs")
"""Some of the strings that compression finds."""
_LONGEST = 8
"""Limit in characters of a token; see :func:`_tokens`."""


@dataclass(frozen=True)
class Written:
    """The tables, and the offset of each."""

    data: bytes
    places: dict[str, int]


def write_kallsyms(
    symbols: Sequence[tuple[int, str]],
    order: Sequence[str],
    virtual: int,
    *,
    alignment: int = 8,
    absolute_percpu: bool = False,
) -> Written:
    """
    Return the tables of (address, type and name), which are sorted by address.

    :param virtual: Address of the first byte; a multiple of 8.
    :param absolute_percpu: Whether addresses below 2 GiB stand for themselves.
    """
    tokens = _tokens("".join(name for _, name in symbols))
    codes = {token: code for code, token in enumerate(tokens)}
    names, markers = b"", []
    for i, (_, name) in enumerate(symbols):
        if i % 256 == 0:
            markers.append(len(names))
        packed = _compress(name, codes)
        size = len(packed)
        names += bytes([size] if size < 128 else [size & 127 | 128, size >> 7]) + packed
    strings = [token.encode() + b"\0" for token in tokens]
    base = min(at for at, _ in symbols if not absolute_percpu or at >= 1 << 31)
    by_name = sorted(range(len(symbols)), key=lambda i: symbols[i][1][1:])
    parts = {
        "count": struct.pack("<I", len(symbols)),
        "names": names,
        "markers": struct.pack(f"<{len(markers)}I", *markers),
        "tokens": b"".join(strings),
        "index": b"".join(
            struct.pack("<H", len(b"".join(strings[:i]))) for i in range(256)
        ),
        "base": struct.pack("<Q", base),
        "order": b"".join(i.to_bytes(3, "big") for i in by_name),
    }
    data, places = b"", {}
    for part in order:
        unit = 8 if part == "base" else alignment
        data += bytes(-len(data) % unit)
        places[part] = len(data)
        if part != "offsets":
            data += parts[part]
            continue
        for i, (at, _) in enumerate(symbols):
            if "base" not in order:
                offset = at - (virtual + places[part] + 4 * i)
            elif not absolute_percpu:
                offset = at - base
            else:
                offset = at if at < 1 << 31 else base - at - 1
            data += (offset % (1 << 32)).to_bytes(4, "little")
    return Written(data, places)


def _tokens(text: str) -> list[str]:
    """Return 256 strings; each character that is in the text is one of its own."""
    used = set(text) | set("0123456789")
    words = iter([*_WORDS, *(f"{word}{i:02}" for i in range(40) for word in _WORDS)])
    return [chr(i) if chr(i) in used else next(words) for i in range(256)]


def _compress(name: str, codes: Mapping[str, int]) -> bytes:
    packed, at = [], 0
    while at < len(name):
        part = name[at : at + _LONGEST]
        while part not in codes:
            part = part[:-1]
        packed.append(codes[part])
        at += len(part)
    return bytes(packed)
