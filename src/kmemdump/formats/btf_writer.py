# SPDX-License-Identifier: GPL-2.0-or-later
"""Write BTF, of types that are known from elsewhere."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from kmemdump.formats.btf import Btf, BtfKind, pack_btf

__all__ = ["BtfWriter"]

_MAX_COUNT = 0xFFFF
"""Members, enumerators or parameters that a type has room for."""
_BIT_FIELD_OFFSET = 1 << 24


class BtfWriter:
    """
    Collects types; each has an id, which others may use before the type is written.

    :param base: BTF that this continues.
    """

    def __init__(self, base: Btf | None = None) -> None:
        self._base = base
        self._first = 1
        self._strings = bytearray(b"" if base else b"\0")
        self._first_string = 0
        if base is not None:
            self._first = base.first_id + len(base.places)
            self._first_string = base.first_string + len(base.strings)
        self._places = {"": 0}
        self._records: list[bytes] = []

    def __len__(self) -> int:
        return len(self._records)

    def reserve(self) -> int:
        """Return the id of a type that is written later."""
        self._records.append(b"")
        return self._first + len(self._records) - 1

    def add(
        self,
        kind: BtfKind,
        name: str = "",
        size_or_type: int = 0,
        body: bytes = b"",
        *,
        count: int = 0,
        flag: bool = False,
        type_id: int | None = None,
    ) -> int:
        """
        Add a type; return its id.

        :param type_id: Its id if that is reserved.
        """
        if type_id is None:
            type_id = self.reserve()
        info = kind << 24 | count | flag << 31
        head = struct.pack("<III", self._string(name), info, size_or_type)
        self._records[type_id - self._first] = head + body
        return type_id

    def integer(self, name: str, size: int, *, signed: bool, boolean: bool) -> int:
        """Add an integer of *size* bytes."""
        encoding = 1 * signed | 4 * boolean  # BTF_INT_SIGNED, BTF_INT_BOOL
        body = struct.pack("<I", encoding << 24 | size * 8)
        return self.add(BtfKind.INT, name, size, body)

    def array(self, element: int, index: int, length: int) -> int:
        """Add an array; *index* is the type of its index."""
        return self.add(BtfKind.ARRAY, body=struct.pack("<III", element, index, length))

    def structure(
        self,
        type_id: int,
        kind: BtfKind,
        name: str,
        size: int,
        members: Sequence[tuple[str, int, int, int]],
    ) -> None:
        """
        Write a structure or union whose id is reserved.

        :param members: Name, type, offset in bits, and size in bits of a bit field or
            0. What BTF has no room for is left out.
        """
        flag = any(bits for *_, bits in members)
        body, count = b"", 0
        for member, type, offset, bits in members[:_MAX_COUNT]:
            if flag and offset >= _BIT_FIELD_OFFSET:
                break
            place = offset | bits << 24
            body += struct.pack("<III", self._string(member), type, place)
            count += 1
        self.add(kind, name, size, body, count=count, flag=flag, type_id=type_id)

    def enumeration(
        self, name: str, size: int, values: Iterable[tuple[str, int]], *, signed: bool
    ) -> int:
        """Add an enumeration of *size* bytes."""
        wide = size > 4
        layout = "<IQ" if wide else "<II"
        mask = (1 << (64 if wide else 32)) - 1
        rows = [
            struct.pack(layout, self._string(key), value & mask)
            for key, value in values
        ][:_MAX_COUNT]
        kind = BtfKind.ENUM64 if wide else BtfKind.ENUM
        return self.add(kind, name, size, b"".join(rows), count=len(rows), flag=signed)

    def prototype(self, returns: int, parameters: Sequence[tuple[str, int]]) -> int:
        """Add the type of a function; a last parameter ("", 0) is an ellipsis."""
        rows = [
            struct.pack("<II", self._string(name), type)
            for name, type in parameters[:_MAX_COUNT]
        ]
        return self.add(
            BtfKind.FUNC_PROTO, "", returns, b"".join(rows), count=len(rows)
        )

    def data(self) -> bytes:
        """Return the BTF."""
        return pack_btf(Btf(b"".join(self._records), bytes(self._strings), "new"))

    def _string(self, text: str) -> int:
        place = self._places.get(text)
        if place is None and self._base is not None:
            # Readers look for a name in the base first.
            place = self._base.name_offset(text)
        if place is None:
            place = self._first_string + len(self._strings)
            self._places[text] = place
            self._strings += text.replace("\0", "").encode("utf-8", "replace") + b"\0"
        return place
