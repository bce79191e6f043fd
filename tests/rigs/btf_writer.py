# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes BTF as Documentation/bpf/btf.rst describes it, without the parser's tables."""

import struct
from collections.abc import Sequence


class BtfWriter:
    """
    Collects types; each method returns the id of the type that it adds.

    :param base: The writer of the kernel's BTF, if this is a module's.
    """

    def __init__(self, base: "BtfWriter | None" = None) -> None:
        self.types = b""
        self.strings = b"" if base else b"\0"
        self.next_id: int = base.next_id if base else 1
        self.first_string: int = base.first_string + len(base.strings) if base else 0
        self.base = base
        self._names: dict[str, int] = {}

    def name(self, text: str) -> int:
        """Return the offset of a string; a name that the base has is not repeated."""
        if not text:
            return 0
        for writer in (self.base, self):
            if writer is not None and text in writer._names:
                return writer._names[text] + writer.first_string
        at = self._names[text] = len(self.strings)
        self.strings += text.encode() + b"\0"
        return at + self.first_string

    def add(
        self, kind: int, name: str, size_or_type: int, body: bytes = b"",
        vlen: int = 0, flag: bool = False,
    ) -> int:  # fmt: skip
        info = kind << 24 | vlen | flag << 31
        self.types += struct.pack("<III", self.name(name), info, size_or_type) + body
        self.next_id += 1
        return self.next_id - 1

    def integer(
        self, name: str, size: int, signed: bool = False, bool_: bool = False
    ) -> int:
        encoding = (1 if signed else 0) | (4 if bool_ else 0)
        return self.add(1, name, size, struct.pack("<I", encoding << 24 | size * 8))

    def pointer(self, target: int) -> int:
        return self.add(2, "", target)

    def array(self, element: int, length: int, index: int = 0) -> int:
        return self.add(3, "", 0, struct.pack("<III", element, index, length))

    def struct(
        self, name: str, size: int,
        members: Sequence[tuple[str, int, int] | tuple[str, int, int, int]],
        kind: int = 4,
    ) -> int:  # fmt: skip
        """Members are name, type, offset in bits and, for bit fields, size in bits."""
        flag = any(len(member) == 4 for member in members)
        body = b""
        for name_, type_, offset, *bits in members:
            place = offset | (bits[0] if bits else 0) << 24
            body += struct.pack("<III", self.name(name_), type_, place)
        return self.add(kind, name, size, body, len(members), flag)

    def enum(
        self, name: str, values: dict[str, int], size: int = 4, signed: bool = False
    ) -> int:
        layout = "<Ii" if signed else "<II"
        body = b"".join(
            struct.pack(layout, self.name(key), value) for key, value in values.items()
        )
        return self.add(6, name, size, body, len(values), signed)

    def enum64(self, name: str, values: dict[str, int], signed: bool = False) -> int:
        body = b"".join(
            struct.pack("<IQ", self.name(key), value % (1 << 64))
            for key, value in values.items()
        )
        return self.add(19, name, 8, body, len(values), signed)

    def forward(self, name: str, union: bool = False) -> int:
        return self.add(7, name, 0, flag=union)

    def typedef(self, name: str, target: int) -> int:
        return self.add(8, name, target)

    def volatile(self, target: int) -> int:
        return self.add(9, "", target)

    def const(self, target: int) -> int:
        return self.add(10, "", target)

    def restrict(self, target: int) -> int:
        return self.add(11, "", target)

    def function(self, name: str, prototype: int) -> int:
        return self.add(12, name, prototype, vlen=1)  # BTF_FUNC_GLOBAL

    def prototype(self, returns: int, parameters: Sequence[tuple[str, int]]) -> int:
        body = b"".join(struct.pack("<II", self.name(n), t) for n, t in parameters)
        return self.add(13, "", returns, body, len(parameters))

    def variable(self, name: str, type_: int) -> int:
        return self.add(14, name, type_, struct.pack("<I", 1))  # BTF_VAR_GLOBAL...

    def section(self, name: str, variables: Sequence[tuple[int, int, int]]) -> int:
        """Variables are type id, offset and size in bytes."""
        body = b"".join(struct.pack("<III", *variable) for variable in variables)
        return self.add(15, name, 0, body, len(variables))

    def float(self, name: str, size: int) -> int:
        return self.add(16, name, size)

    def declaration_tag(self, name: str, target: int) -> int:
        return self.add(17, name, target, struct.pack("<i", -1))

    def type_tag(self, name: str, target: int) -> int:
        return self.add(18, name, target)

    def bytes(self) -> bytes:
        head = struct.pack(
            "<HBBIIIII", 0xEB9F, 1, 0, 24,
            0, len(self.types), len(self.types), len(self.strings),
        )  # fmt: skip
        return head + self.types + self.strings
