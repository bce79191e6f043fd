# SPDX-License-Identifier: GPL-2.0-or-later
"""The device's side of Sahara's memory debug mode, without any input or output."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.formats.sahara import (
    Command,
    DeviceRow,
    Hello,
    Mode,
    SaharaStatus,
    pack_hello,
    pack_packet,
    pack_table,
    parse_packet,
)

__all__ = ["Device"]

_VERSION, _COMPATIBLE = 2, 1
_MAX_PACKET = 0x400  # Longest packet, as HELLO says.
_MAX_READ = 16 << 20


class Device:
    """
    A device that has crashed.

    :param rows: Its region table.
    :param read: Reads memory: physical address and size; raises
        :exc:`NotCapturedError` where there is none.
    :param wide: Whether it uses the 64-bit form.
    :param table_address: Address of its table, as it reports it.
    :param version: Version of the protocol in HELLO.
    """

    def __init__(
        self,
        rows: Sequence[DeviceRow],
        read: Callable[[int, int], bytes],
        *,
        wide: bool = True,
        table_address: int = 0x1000,
        version: int = _VERSION,
    ) -> None:
        self._table = pack_table(rows, wide=wide)
        self._table_address = table_address
        self._rows = list(rows)
        self._memory = read
        self._wide = wide
        self._version = version
        self._greeted = False
        self.finished = False

    def start(self) -> bytes:
        """Return the first packet."""
        hello = Hello(self._version, _COMPATIBLE, _MAX_PACKET, Mode.MEMORY_DEBUG)
        return pack_hello(Command.HELLO, hello)

    def receive(self, transfer: bytes) -> bytes:
        """Take a packet; return the answer, a packet or data."""
        try:
            packet = parse_packet(transfer, "host")
        except FormatError:
            return _failure(SaharaStatus.INVALID_COMMAND)
        command, values = packet.command, packet.values
        if command is Command.RESET:
            self.finished = True
            return pack_packet(Command.RESET_RESP)
        if command is Command.HELLO_RESP:
            hello = Hello(*values)
            if hello.mode != Mode.MEMORY_DEBUG or hello.value != SaharaStatus.OK:
                return _failure(SaharaStatus.INVALID_HOST_MODE)
            self._greeted = True
            debug = Command.MEM_DEBUG64 if self._wide else Command.MEM_DEBUG
            return pack_packet(debug, self._table_address, len(self._table))
        wanted = Command.MEM_READ64 if self._wide else Command.MEM_READ
        if command is not wanted or not self._greeted:
            return _failure(SaharaStatus.INVALID_COMMAND)
        return self._answer_read(*values)

    def _answer_read(self, address: int, size: int) -> bytes:
        start = address - self._table_address
        if start >= 0 and start + size <= len(self._table):
            return self._table[start : start + size]
        offered = any(
            row.address <= address and address + size <= row.address + row.size
            for row in self._rows
        )
        if not offered or size > _MAX_READ:
            return _failure(SaharaStatus.INVALID_MEMORY_READ)
        try:
            return self._memory(address, size)
        except NotCapturedError:
            return _failure(SaharaStatus.INVALID_MEMORY_READ)


def _failure(status: SaharaStatus) -> bytes:
    return pack_packet(Command.END_OF_IMAGE, 0, status)
