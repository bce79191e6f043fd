# SPDX-License-Identifier: GPL-2.0-or-later
"""
What each byte of a structure is, by its type.

Pointers, numbers, flags and links are structure. Arrays of bytes are data: names, keys,
addresses, whatever programs put there.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from drgn import Type, TypeKind, TypeMember, sizeof

from kmemdump.redaction.codes import DATA, IDS, KEEP, NETWORK, SLACK, STATE, WORDS

__all__ = ["Part", "Structures"]

_STATE_TYPES = frozenset(
    (
        # Registers of user programs, and keys, beside those on the stack.
        *("fpregs_state", "user_fpsimd_state", "user_fpsimd_struct"),
        *("ptrauth_key", "ptrauth_keys_user", "ptrauth_keys_kernel"),
        *("siphash_key_t", "siphash_aligned_key_t", "hsiphash_key_t"),
    )
)
_ADDRESS_TYPES = frozenset(("x86_hw_tss",))
"""Addresses of stacks, at offsets that are no multiples of a word."""
_ID_TYPES = frozenset(("kuid_t", "kgid_t"))
_NETWORK_TYPES = frozenset(("__be32", "in6_addr"))
_DATA_MEMBERS = {
    ("task_struct", "stack_canary"): STATE,
    # Of a name: it would prove a guess.
    ("qstr", "hash"): DATA,
}
_PADDING = re.compile("_*pad(ding)?[0-9]*")
"""Names of arrays that give a union its size, and hold nothing themselves."""
_MAX_SIZE = 256 << 10
_NUMBER = 8
_NUMBERS = (TypeKind.INT, TypeKind.BOOL, TypeKind.ENUM, TypeKind.FLOAT)
_COMPOUND = (TypeKind.STRUCT, TypeKind.UNION, TypeKind.CLASS)
_STRONGEST = (STATE, IDS, NETWORK, DATA, WORDS, KEEP, SLACK)
"""Where the members of a union differ, the first of these holds."""


class Part(NamedTuple):
    """Bytes of a structure with one code."""

    start: int
    size: int
    code: int


class Structures:
    """The parts of types, kept by their names."""

    def __init__(self) -> None:
        self._known: dict[str, bytes] = {}
        self._parts: dict[str, list[Part]] = {}

    def parts(self, type: Type) -> list[Part]:
        """Return the parts of a type; at most the first 256 KiB of it."""
        name = type.type_name()
        if name not in self._parts:
            self._parts[name] = list(_runs(self._codes(type)))
        return self._parts[name]

    def _codes(self, type: Type) -> bytes:
        """Return a code for each byte of a type."""
        try:
            size = min(int(sizeof(type)), _MAX_SIZE)
        except TypeError:  # Incomplete, or a function.
            return b""
        if type.kind is TypeKind.TYPEDEF:
            for names, code in (
                (_ID_TYPES, IDS),
                (_STATE_TYPES, STATE),
                (_NETWORK_TYPES, NETWORK),
            ):
                if type.name in names:
                    return bytes([code]) * size
            return self._codes(type.type)
        if type.kind in _NUMBERS:
            return bytes([KEEP if size <= _NUMBER else DATA]) * size
        if type.kind is TypeKind.POINTER:
            return bytes([KEEP]) * size
        if type.kind is TypeKind.ARRAY:
            return self._of_array(type, size)
        if type.kind in _COMPOUND:
            return self._of_compound(type, size)
        return bytes([WORDS]) * size

    def _of_array(self, type: Type, size: int) -> bytes:
        element = type.type
        while element.kind is TypeKind.TYPEDEF and element.name not in _ID_TYPES:
            element = element.type
        if element.kind in _NUMBERS:
            return bytes([DATA if sizeof(element) == 1 else WORDS]) * size
        codes = self._codes(type.type)
        return (codes * (size // len(codes) + 1))[:size] if codes else bytes(size)

    def _of_compound(self, type: Type, size: int) -> bytes:
        if type.tag in _STATE_TYPES:
            return bytes([STATE]) * size
        if type.tag in _ADDRESS_TYPES:
            return bytes([KEEP]) * size
        if type.tag in _NETWORK_TYPES:
            return bytes([NETWORK]) * size
        key = type.type_name() if type.tag else None
        if key is not None and key in self._known:
            return self._known[key]
        codes = bytearray(size)
        seen = bytearray(size)
        for member in _members(type):
            start, bits = divmod(member.bit_offset, 8)
            if member.bit_field_size:
                end = start + (bits + member.bit_field_size + 7) // 8
                found = bytes([KEEP]) * (end - start)
            else:
                code = _DATA_MEMBERS.get((type.tag or "", member.name or ""))
                found = self._codes(member.type)
                if code is not None:
                    found = bytes([code]) * len(found)
            for i, code in enumerate(found[: size - start], start):
                codes[i] = _stronger(codes[i], code) if seen[i] else code
                seen[i] = 1
        result = bytes(codes)
        if key is not None:
            self._known[key] = result
        return result


def _members(type: Type) -> list[TypeMember]:
    """Return the members of a type; of a union, those that say what its bytes are."""
    found: list[TypeMember] = list(type.members or ())
    if type.kind is TypeKind.UNION:
        # ``union { struct { … }; u8 pad[64]; }``: the structure's members tell.
        told = [it for it in found if not _PADDING.fullmatch(it.name or "")]
        return told or found
    return found


def _stronger(one: int, other: int) -> int:
    return one if _STRONGEST.index(one) < _STRONGEST.index(other) else other


def _runs(codes: bytes) -> list[Part]:
    found: list[Part] = []
    start = 0
    for i in range(1, len(codes) + 1):
        if i == len(codes) or codes[i] != codes[start]:
            found.append(Part(start, i - start, codes[start]))
            start = i
    return found
