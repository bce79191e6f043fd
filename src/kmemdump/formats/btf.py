# SPDX-License-Identifier: GPL-2.0-or-later
"""
BTF, the type information that a kernel carries in its own memory.

This module indexes the bytes; :mod:`kmemdump.kernel.types` makes drgn types of
them. The format is that of Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import contextlib
import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from mmap import mmap

from kmemdump.errors import FormatError
from kmemdump.formats.btf_bounds import Structure, StructureBounds

__all__ = [
    "Btf",
    "BtfKind",
    "BtfMember",
    "BtfType",
    "find_btf",
    "pack_btf",
    "parse_btf",
]

MAX_SIZE = 256 << 20
"""BTF larger than this is refused; Debian's kernels have 4 to 7 MB."""

_HEADER = struct.Struct("<HBBIIIII")  # struct btf_header
_TYPE = struct.Struct("<III")  # struct btf_type: name_off, info, size or type
_ARRAY = struct.Struct("<III")  # struct btf_array: type, index_type, nelems
_MEMBER = struct.Struct("<III")  # struct btf_member: name_off, type, offset
_ENUM = struct.Struct("<Ii")  # struct btf_enum: name_off, val
_UNSIGNED_ENUM = struct.Struct("<II")
_ENUM64 = struct.Struct("<IQ")  # struct btf_enum64: name_off, val_lo32, val_hi32
_SIGNED_ENUM64 = struct.Struct("<Iq")
_PARAM = struct.Struct("<II")  # struct btf_param: name_off, type
_VAR_SECINFO = struct.Struct("<III")  # struct btf_var_secinfo: type, offset, size
_U32 = struct.Struct("<I")

_MAGIC = 0xEB9F


class BtfKind(IntEnum):
    """``BTF_KIND_*`` of include/uapi/linux/btf.h."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


# Bytes that follow struct btf_type: a fixed part, and one for each of vlen.
_FIXED = {BtfKind.INT: 4, BtfKind.ARRAY: 12, BtfKind.VAR: 4, BtfKind.DECL_TAG: 4}
_EACH = {
    BtfKind.STRUCT: 12,
    BtfKind.UNION: 12,
    BtfKind.ENUM: 8,
    BtfKind.FUNC_PROTO: 8,
    BtfKind.DATASEC: 12,
    BtfKind.ENUM64: 12,
}
_KINDS = tuple(BtfKind)  # Faster than BtfKind(number), and needed often.
_FIXED_WORDS = [(_TYPE.size + _FIXED.get(kind, 0)) // 4 for kind in BtfKind]
_FIXED_WORDS += [0] * (32 - len(_FIXED_WORDS))  # Five bits hold the kind.
_FIXED_WORDS[BtfKind.VOID] = 0
_EACH_WORDS = [_EACH.get(kind, 0) // 4 for kind in BtfKind]
_STRUCTS = (BtfKind.STRUCT, BtfKind.UNION)
_ALIASES = (
    BtfKind.TYPEDEF,
    BtfKind.VOLATILE,
    BtfKind.CONST,
    BtfKind.RESTRICT,
    BtfKind.TYPE_TAG,
)
_MAX_NAME = 512
"""Longest name and its NUL: KSYM_NAME_LEN, as kernel/bpf/btf.c checks."""
_MAX_ALIASES = 64
"""Typedefs and qualifiers of each other; damaged BTF has circles."""
_LISTED = (BtfKind.ENUM, BtfKind.ENUM64, BtfKind.DATASEC)


@dataclass(frozen=True, slots=True)
class BtfType:
    """``struct btf_type``, decoded."""

    kind: BtfKind
    name: str
    """Empty for an anonymous type."""
    count: int
    """``vlen``: members, enumerators or parameters."""
    flag: bool
    """``kind_flag``: bit-field layout of a struct, signedness of an enum."""
    size_or_type: int
    """Size in bytes, or id of another type, depending on *kind*."""
    body: int
    """Offset in the type section of the data that follows."""
    section: bytes | mmap = field(default=b"", repr=False, compare=False)
    """The type section that it is in: this BTF's, or its base's."""


@dataclass(frozen=True, slots=True)
class BtfMember:
    """A member of a struct or union."""

    name: str
    type: int
    bit_offset: int
    bit_size: int
    """0 unless a bit field."""


@dataclass(slots=True)
class Btf:
    """Indexed BTF. Type id 0 is ``void``; ids continue those of *base*, if any."""

    types: bytes | mmap
    strings: bytes | mmap
    source: str
    base: Btf | None = None
    places: Sequence[int] = field(default_factory=lambda: array("I"))
    """Place in *types* of each type of this BTF, in words of four bytes."""
    named: Sequence[int] = field(default_factory=lambda: array("Q"))
    """For each named type, sorted: the name's offset in *strings* << 32 | id."""
    listed: dict[BtfKind, list[int]] = field(
        default_factory=lambda: {kind: [] for kind in _LISTED}
    )
    """Ids of all types of a few kinds."""
    first_id: int = 1
    first_string: int = 0
    _bounds: StructureBounds = field(init=False, repr=False, compare=False)
    """Finds the structures that no compiler makes."""
    _enumerators: dict[int, tuple[int, int]] = field(default_factory=dict, repr=False)
    """Offset of a name in *strings* to its enumeration's id, and its index there."""
    _searched: dict[str, int | None] = field(default_factory=dict, repr=False)
    """Name to its offset in *strings*, for names that were looked up."""

    def __post_init__(self) -> None:
        self._bounds = StructureBounds(self._structure)

    def type(self, type_id: int) -> BtfType:
        """
        Return a type.

        :raises FormatError: If there is no such type, or it is damaged.
        """
        found = self._decode(type_id)
        if found.kind in _STRUCTS:
            problem = self._bounds.problem(type_id)
            if problem is not None:
                raise FormatError(self.source, f"BTF type {type_id} is {problem}")
        return found

    def _decode(self, type_id: int) -> BtfType:
        if type_id < self.first_id and self.base is not None:
            return self.base._decode(type_id)
        if type_id == 0:
            return BtfType(BtfKind.VOID, "void", 0, False, 0, 0)
        index = type_id - self.first_id
        if not 0 <= index < len(self.places):
            raise FormatError(self.source, f"no type {type_id} in BTF")
        offset = 4 * self.places[index]
        name, info, size_or_type = _TYPE.unpack_from(self.types, offset)
        return BtfType(
            _KINDS[info >> 24 & 0x1F],
            self.string(name),
            info & 0xFFFF,
            bool(info >> 31),
            size_or_type,
            offset + _TYPE.size,
            self.types,
        )

    def _structure(self, type_id: int) -> Structure:
        """Return what a structure costs, if it is in its place."""
        found = self._decode(type_id)
        rows = self._rows(found, _MEMBER)
        inner = (self._behind_aliases(type_id) for name, type_id, _ in rows if not name)
        anonymous = [it for it in inner if it is not None]
        return Structure(found.size_or_type, found.count, anonymous)

    def _behind_aliases(self, type_id: int) -> int | None:
        """Return the structure that an anonymous member is."""
        for _ in range(_MAX_ALIASES):
            try:
                found = self._decode(type_id)
            except FormatError:
                return None
            if found.kind in _STRUCTS:
                return type_id
            if found.kind not in _ALIASES:
                return None
            type_id = found.size_or_type
        return None

    def string(self, offset: int) -> str:
        """Return the string at *offset*."""
        if offset < self.first_string and self.base is not None:
            return self.base.string(offset)
        start = offset - self.first_string
        end = self.strings.find(b"\0", start, start + _MAX_NAME)
        if end < 0:
            raise FormatError(self.source, f"no string at offset {offset:#x} in BTF")
        return self.strings[start:end].decode("ascii", "backslashreplace")

    def name_offset(self, name: str) -> int | None:
        """Return the offset of a string; ``None`` if there is no such string."""
        if name not in self._searched:
            self._searched[name] = self._search(name)
        return self._searched[name]

    def _search(self, name: str) -> int | None:
        # BTF's strings are unique, so one search finds the only offset; a split BTF
        # uses the base's string for a name that both have.
        if self.base is not None:
            offset = self.base.name_offset(name)
            if offset is not None:
                return offset
        raw = name.encode("utf-8", "backslashreplace") + b"\0"
        if self.strings[: len(raw)] == raw:
            return self.first_string
        found = self.strings.find(b"\0" + raw)
        return None if found < 0 else found + 1 + self.first_string

    def find(self, name: str, kinds: set[BtfKind]) -> int | None:
        """Return the id of the first type of one of *kinds* with this name."""
        offset = self.name_offset(name)
        if offset is None:
            return None
        for i in range(bisect_left(self.named, offset << 32), len(self.named)):
            if self.named[i] >> 32 != offset:
                break
            type_id = self.named[i] & 0xFFFFFFFF
            if self.type(type_id).kind in kinds:
                return type_id
        return self.base.find(name, kinds) if self.base else None

    def _index_enumerators(self) -> None:
        for kind in (BtfKind.ENUM, BtfKind.ENUM64):
            layout = _ENUM64 if kind == BtfKind.ENUM64 else _ENUM
            for type_id in self.listed[kind]:
                type = self.type(type_id)
                for i, (name, _) in enumerate(self._rows(type, layout)):
                    self._enumerators.setdefault(name, (type_id, i))

    def find_enumerator(self, name: str) -> tuple[int, int] | None:
        """Return the id of the enumeration that has *name*, and the index in it."""
        offset = self.name_offset(name)
        if not self._enumerators:
            self._index_enumerators()
        if offset is not None and offset in self._enumerators:
            return self._enumerators[offset]
        return self.base.find_enumerator(name) if self.base else None

    def int_encoding(self, type: BtfType) -> int:
        """Return the word after an INT: encoding, offset and bits."""
        value: int = _U32.unpack_from(type.section, type.body)[0]
        return value

    def array(self, type: BtfType) -> tuple[int, int]:
        """Return the element type and the number of elements of an ARRAY."""
        element, _, length = _ARRAY.unpack_from(type.section, type.body)
        return element, length

    def members(self, type: BtfType) -> Iterator[BtfMember]:
        """Iterate over the members of a STRUCT or UNION."""
        for name, member_type, offset in self._rows(type, _MEMBER):
            bits = offset >> 24 if type.flag else 0
            position = offset & 0xFFFFFF if type.flag else offset
            yield BtfMember(self.string(name), member_type, position, bits)

    def enumerator_values(self, type: BtfType) -> Iterator[tuple[str, int]]:
        """Iterate over names and values of an ENUM or ENUM64."""
        if type.kind == BtfKind.ENUM64:
            layout = _SIGNED_ENUM64 if type.flag else _ENUM64
        else:
            layout = _ENUM if type.flag else _UNSIGNED_ENUM
        for name, value in self._rows(type, layout):
            yield self.string(name), value

    def parameters(self, type: BtfType) -> Iterator[tuple[str, int]]:
        """Iterate over names and types of a FUNC_PROTO's parameters."""
        for name, parameter in self._rows(type, _PARAM):
            yield self.string(name), parameter

    def section_variables(self, type: BtfType) -> Iterator[tuple[int, int]]:
        """Iterate over the VARs of a DATASEC: type id and offset in the section."""
        for variable, offset, _ in self._rows(type, _VAR_SECINFO):
            yield variable, offset

    def _rows(self, type: BtfType, layout: struct.Struct) -> Iterator[tuple[int, ...]]:
        """Iterate over the entries that follow a type."""
        end = type.body + type.count * layout.size
        return layout.iter_unpack(type.section[type.body : end])


def parse_btf(data: bytes, source: str, base: Btf | None = None) -> Btf:
    """
    Index BTF.

    :param data: From the header on, as in ``/sys/kernel/btf/vmlinux``.
    :param base: The kernel's BTF, if *data* is a module's, which continues it.
    :raises FormatError: If *data* is not readable BTF.
    """
    if len(data) < _HEADER.size or len(data) > MAX_SIZE:
        raise FormatError(source, f"{len(data)} bytes are no BTF")
    magic, version, _, header, type_off, type_len, str_off, str_len = (
        _HEADER.unpack_from(data)
    )
    if magic != _MAGIC or version != 1:
        raise FormatError(
            source,
            f"magic {magic:#x} and version {version}, expected BTF {_MAGIC:#x} and 1",
        )
    if max(header + type_off + type_len, header + str_off + str_len) > len(data):
        raise FormatError(source, f"BTF sections end after {len(data)} bytes")
    types = data[header + type_off : header + type_off + type_len]
    strings = data[header + str_off : header + str_off + str_len]
    # The kernel's strings begin with an empty one; a module may have none.
    if (strings or base is None) and not strings.endswith(b"\0"):
        raise FormatError(source, "BTF strings lack a terminating NUL")
    if base is None and not strings.startswith(b"\0"):
        raise FormatError(source, "BTF strings do not begin with an empty one")
    btf = Btf(types, strings, source, base)
    if base is not None:
        btf.first_id = base.first_id + len(base.places)
        btf.first_string = base.first_string + len(base.strings)
    _index(btf)
    return btf


_START = struct.pack("<HBBII", _MAGIC, 1, 0, _HEADER.size, 0)
_MAX_PLACES = 256


def find_btf(data: bytes, source: str) -> tuple[int, int] | None:
    """
    Find the kernel's BTF by its header, in an image of the kernel.

    :param source: Name of *data*, for messages.
    :return: Where it starts and ends in *data*; ``None`` if *data* has no BTF.
    """
    at = -1
    for _ in range(_MAX_PLACES):
        at = data.find(_START, at + 1)
        if at < 0:
            break
        *_, str_off, str_len = _HEADER.unpack(data[at : at + _HEADER.size].ljust(24))
        end = at + _HEADER.size + str_off + str_len
        # A module's BTF, or a program's, lacks what every kernel has.
        if end <= len(data) and data.find(b"\0task_struct\0", at, end) >= 0:
            with contextlib.suppress(FormatError):
                parse_btf(data[at:end], source)
                return at, end
    return None


def pack_btf(btf: Btf) -> bytes:
    """Return BTF in the form in which a kernel has it."""
    types, strings = len(btf.types), len(btf.strings)
    head = _HEADER.pack(_MAGIC, 1, 0, _HEADER.size, 0, types, types, strings)
    return b"".join((head, btf.types, btf.strings))


def _index(btf: Btf) -> None:
    # There are 100,000 types: opening a core image waits for this, and an agent keeps
    # it in memory. An array takes a tenth of a dictionary's memory.
    places = array("I")
    add, fixed, more = places.append, _FIXED_WORDS, _EACH_WORDS
    listed = [btf.listed.get(kind) for kind in BtfKind]
    words = array("I", btf.types[: len(btf.types) // 4 * 4])
    if sys.byteorder == "big":
        words.byteswap()
    at, last = 0, len(words) - 3
    while at <= last:
        info = words[at + 1]
        kind = info >> 24 & 0x1F
        size = fixed[kind]
        if not size:
            raise FormatError(
                btf.source, f"unknown BTF kind {kind} at offset {4 * at:#x}"
            )
        add(at)
        at += size
        if each := more[kind]:
            at += each * (info & 0xFFFF)
            if (ids := listed[kind]) is not None:
                ids.append(btf.first_id + len(places) - 1)
    if 4 * at != len(btf.types):
        cut = places[-1] if places and at > len(words) else at
        raise FormatError(btf.source, f"BTF type at offset {4 * cut:#x} is cut short")
    names = enumerate(map(words.__getitem__, places), btf.first_id)
    btf.places = places
    btf.named = array("Q", sorted([name << 32 | id for id, name in names if name]))
