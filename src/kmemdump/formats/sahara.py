# SPDX-License-Identifier: GPL-2.0-or-later
"""
Sahara: the protocol by which a host reads the memory of a Qualcomm device.

Packets and the table of regions, in the 32-bit and the 64-bit form. The two sides of
the exchange are in :mod:`kmemdump.formats.sahara_host` and ``sahara_device``.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from enum import IntEnum

from kmemdump.errors import FormatError
from kmemdump.text import c_string

__all__ = [
    "MAX_PACKET",
    "MAX_TABLE_BYTES",
    "Command",
    "DeviceRow",
    "Hello",
    "Mode",
    "Packet",
    "SaharaStatus",
    "name_row",
    "pack_hello",
    "pack_packet",
    "pack_table",
    "parse_packet",
    "parse_table",
]

MAX_PACKET = 4096
"""Most bytes of a packet; data has no packet around it."""
MAX_TABLE_BYTES = 64 << 10
"""Most bytes of a table; qdl's limit, too."""

_HEAD = struct.Struct("<II")
_HELLO = struct.Struct("<IIII24x")
_ROW32 = struct.Struct("<III20s20s")
_ROW64 = struct.Struct("<QQQ20s20s")


class Command(IntEnum):
    """Packets that matter for memory debug."""

    HELLO = 0x01
    HELLO_RESP = 0x02
    END_OF_IMAGE = 0x04
    """In this mode, the device's error report."""
    RESET = 0x07
    RESET_RESP = 0x08
    MEM_DEBUG = 0x09
    MEM_READ = 0x0A
    MEM_DEBUG64 = 0x10
    MEM_READ64 = 0x11
    RESET_STATE = 0x13


class Mode(IntEnum):
    """What a device waits for."""

    IMAGE_PENDING = 0
    IMAGE_COMPLETE = 1
    MEMORY_DEBUG = 2
    COMMAND = 3


class SaharaStatus(IntEnum):
    """Errors that are reported."""

    OK = 0
    INVALID_COMMAND = 0x01
    INVALID_PACKET_SIZE = 0x05
    INVALID_HOST_MODE = 0x18
    INVALID_MEMORY_READ = 0x19
    MEMORY_DEBUG_NOT_SUPPORTED = 0x1B


# Layout of the words after the head, for each command.
_BODIES = {
    Command.HELLO: _HELLO,
    Command.HELLO_RESP: _HELLO,
    Command.END_OF_IMAGE: struct.Struct("<II"),
    Command.RESET: struct.Struct(""),
    Command.RESET_RESP: struct.Struct(""),
    Command.MEM_DEBUG: struct.Struct("<II"),
    Command.MEM_READ: struct.Struct("<II"),
    Command.MEM_DEBUG64: struct.Struct("<QQ"),
    Command.MEM_READ64: struct.Struct("<QQ"),
    Command.RESET_STATE: struct.Struct(""),
}


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet with its numbers."""

    command: Command
    values: tuple[int, ...] = ()
    """HELLO: see :class:`Hello`; END_OF_IMAGE: image, status; else address, length."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The fields of HELLO and HELLO_RESP."""

    version: int
    compatible: int
    """Lowest version that it accepts."""
    value: int
    """HELLO: longest packet that it takes; HELLO_RESP: a :class:`SaharaStatus`."""
    mode: int


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A row of the region table."""

    type: int
    """The device's preference, which no reader acts on."""
    address: int
    """Physical address in bytes."""
    size: int
    """Size in bytes."""
    description: str
    """Without ``.BIN``."""
    file_name: str


def parse_packet(data: bytes, source: str) -> Packet:
    """
    Parse one whole packet.

    :raises FormatError: If it is another command, or has a wrong length.
    """
    if not _HEAD.size <= len(data) <= MAX_PACKET:
        raise FormatError(
            source,
            f"packet of {len(data)} bytes, expected {_HEAD.size} to {MAX_PACKET}",
        )
    number, length = _HEAD.unpack_from(data)
    try:
        command = Command(number)
    except ValueError:
        raise FormatError(
            source, f"command {number:#x}, expected one of Sahara's memory debug mode"
        ) from None
    body = _BODIES[command]
    if length != len(data) or length != _HEAD.size + body.size:
        raise FormatError(
            source,
            f"{command.name} says {length} bytes and has {len(data)}, expected "
            f"{_HEAD.size + body.size}",
        )
    return Packet(command, body.unpack_from(data, _HEAD.size))


def pack_packet(command: Command, *values: int) -> bytes:
    """Return a packet with its length."""
    body = _BODIES[command]
    head = _HEAD.pack(command, _HEAD.size + body.size)
    return head + body.pack(*values)


def pack_hello(command: Command, hello: Hello) -> bytes:
    """Return a HELLO or HELLO_RESP."""
    return pack_packet(command, *astuple(hello))


def parse_table(data: bytes, source: str, *, wide: bool) -> list[DeviceRow]:
    """
    Parse a region table.

    :param wide: Whether it is in the 64-bit form.
    :raises FormatError: If it is not a whole number of rows, or has too many.
    """
    layout = _ROW64 if wide else _ROW32
    if not data or len(data) % layout.size or len(data) > MAX_TABLE_BYTES:
        raise FormatError(
            source,
            f"region table of {len(data)} bytes, expected a multiple of {layout.size} "
            f"up to {MAX_TABLE_BYTES}",
        )
    rows = []
    for type_, address, size, description, name in layout.iter_unpack(data):
        # The 32-bit form's type is a byte; its padding need not be zero.
        kind = type_ if wide else type_ & 0xFF
        rows.append(
            DeviceRow(kind, address, size, c_string(description), c_string(name))
        )
    return rows


def pack_table(rows: Sequence[DeviceRow], *, wide: bool) -> bytes:
    """
    Return a region table.

    :raises FormatError: If a value does not fit into its field.
    """
    layout = _ROW64 if wide else _ROW32
    pieces = []
    for row in rows:
        texts = [text.encode("ascii") for text in (row.description, row.file_name)]
        if max(map(len, texts)) > 20:
            raise FormatError(row.file_name, "expected names of at most 20 characters")
        try:
            pieces.append(layout.pack(row.type, row.address, row.size, *texts))
        except struct.error as error:
            raise FormatError(row.file_name, str(error)) from None
    return b"".join(pieces)


def name_row(name: str, address: int, size: int) -> DeviceRow:
    """Return the row of a minidump region, with names as firmware makes them."""
    return DeviceRow(1, address, size, f"md_{name}"[:20], f"md_{name[:13]}.BIN")
