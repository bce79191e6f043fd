# SPDX-License-Identifier: GPL-2.0-or-later
"""
The host's side of Sahara's memory debug mode, without any input or output.

:meth:`SaharaHost.receive` takes each transfer, and returns events, such as a packet to
send. Data has no packet around it: if the host has asked for data, a transfer is data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from kmemdump.errors import FormatError
from kmemdump.formats.sahara import (
    MAX_TABLE_BYTES,
    Command,
    DeviceRow,
    Hello,
    Mode,
    Packet,
    SaharaStatus,
    pack_hello,
    pack_packet,
    parse_packet,
    parse_table,
)

__all__ = [
    "CHUNK",
    "Data",
    "Failure",
    "Finished",
    "SaharaHost",
    "Send",
    "TableReceived",
]

CHUNK = 512 << 10
"""Bytes that a host requests at once, as qdl and edl do."""
_ERROR_SIZE = 16  # Of END_OF_IMAGE; data of this size is never requested.
_VERSION, _COMPATIBLE = 2, 1
_MAX_BEGUN = 100
"""How often a device may begin. It begins again if we answer too late."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send this to the other side."""

    data: bytes


@dataclass(frozen=True, slots=True)
class TableReceived:
    """The table has arrived."""

    rows: tuple[DeviceRow, ...]


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a region have arrived; they come in order."""

    row: DeviceRow
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Failure:
    """The device refuses a region, or the rest of it."""

    row: DeviceRow
    offset: int
    reason: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The device restarts; nothing more comes."""


Event = Send | TableReceived | Data | Failure | Finished


class _State(Enum):
    HELLO = auto()
    DEBUG = auto()
    TABLE = auto()
    REGION = auto()
    RESET = auto()
    END = auto()


class SaharaHost:
    """
    A host that downloads regions.

    :param wanted: Chooses rows of the table; all by default.
    :param chunk: Bytes to ask for at once.
    :param source: Name of the device, for messages.
    """

    def __init__(
        self,
        source: str,
        *,
        wanted: Callable[[Sequence[DeviceRow]], Iterable[DeviceRow]] = tuple,
        chunk: int = CHUNK,
    ) -> None:
        if chunk <= _ERROR_SIZE:
            raise ValueError(f"chunks of {chunk} bytes, expected more")
        self._source = source
        self._wanted = wanted
        self._chunk = chunk
        self._state = _State.HELLO
        self._begun = 0
        self._wide = True
        self._pending: list[DeviceRow] = []
        self._offset = 0
        self._asked = 0
        self._got = 0
        self._table = b""

    @property
    def finished(self) -> bool:
        return self._state is _State.END

    @property
    def expected(self) -> int:
        """Bytes of data that the last request still lacks; 0 if a packet comes next."""
        return self._asked - self._got

    def receive(self, transfer: bytes) -> list[Event]:
        """
        Take one transfer.

        :raises FormatError: If the device breaks the protocol. It then waits for
            :meth:`reset`.
        """
        if self._state is _State.END:
            raise FormatError(self._source, "sends more after DONE_RESP or RESET_RESP")
        if not self.expected:
            return self._packet(parse_packet(transfer, self._source))
        if not self._got and self._asked != len(transfer) == _ERROR_SIZE:
            problem = self._error(transfer)
            if problem is not None:
                return self._refused(problem)
        if len(transfer) > self.expected:
            raise FormatError(
                self._source,
                f"sent {len(transfer)} bytes, expected at most {self.expected}",
            )
        self._got += len(transfer)
        if self._state is _State.TABLE:
            self._table += transfer
            return [] if self.expected else self._take_table()
        row, offset = self._pending[0], self._offset
        self._offset += len(transfer)
        events: list[Event] = [Data(row, offset, transfer)]
        return events if self.expected else events + self._ask_for_more()

    def reset(self) -> bytes:
        """Return a packet that makes a device restart in any state."""
        self._state = _State.RESET
        self._asked = self._got = 0
        return pack_packet(Command.RESET)

    def _packet(self, packet: Packet) -> list[Event]:
        command, values = packet.command, packet.values
        if command is Command.HELLO and self._state in (_State.HELLO, _State.DEBUG):
            hello = Hello(*values)
            if hello.mode != Mode.MEMORY_DEBUG:
                raise FormatError(
                    self._source,
                    f"is in mode {hello.mode}, expected {Mode.MEMORY_DEBUG.value} "
                    "(memory debug): it has not crashed, or may not be dumped",
                )
            self._begin(_State.DEBUG)
            answer = Hello(_VERSION, _COMPATIBLE, SaharaStatus.OK, Mode.MEMORY_DEBUG)
            return [Send(pack_hello(Command.HELLO_RESP, answer))]
        if command is Command.RESET_STATE:
            self._begin(_State.HELLO)
            return []
        if self._state is _State.DEBUG and command in (
            Command.MEM_DEBUG,
            Command.MEM_DEBUG64,
        ):
            return self._ask_for_table(command, *values)
        if self._state is _State.RESET and command is Command.RESET_RESP:
            self._state = _State.END
            return [Finished()]
        if command is Command.END_OF_IMAGE:
            raise FormatError(self._source, f"reports an error: {_status(values[1])}")
        raise FormatError(
            self._source,
            f"sent {command.name}, which is not allowed in state {self._state.name}",
        )

    def _begin(self, state: _State) -> None:
        self._begun += 1
        if self._begun > _MAX_BEGUN:
            raise FormatError(self._source, f"began {self._begun} times")
        self._state = state

    def _ask_for_table(self, command: Command, address: int, size: int) -> list[Event]:
        self._wide = command is Command.MEM_DEBUG64
        if not 0 < size <= MAX_TABLE_BYTES:
            raise FormatError(
                self._source,
                f"region table of {size} bytes, expected 1 to {MAX_TABLE_BYTES}",
            )
        self._state, self._table = _State.TABLE, b""
        return [self._read(address, size)]

    def _read(self, address: int, size: int) -> Send:
        command = Command.MEM_READ64 if self._wide else Command.MEM_READ
        self._asked, self._got = size, 0
        return Send(pack_packet(command, address, size))

    def _take_table(self) -> list[Event]:
        rows = parse_table(self._table, self._source, wide=self._wide)
        self._pending = list(self._wanted(rows))
        self._state = _State.REGION
        return [TableReceived(tuple(rows)), *self._ask_for_more()]

    def _ask_for_more(self) -> list[Event]:
        events: list[Event] = []
        while self._pending:
            row = self._pending[0]
            left = row.size - self._offset
            limit = 1 << 64 if self._wide else 1 << 32
            if left > 0 and row.address + row.size > limit:
                reason = "wraps around the end of memory"
                events.append(Failure(row, self._offset, reason))
            elif left > 0:
                size = min(left, self._chunk)
                if size == _ERROR_SIZE:
                    size //= 2
                return [*events, self._read(row.address + self._offset, size)]
            elif row.size == 0:
                events.append(Data(row, 0, b""))  # An empty region is reported, too.
            self._next()
        self._state = _State.RESET
        return [*events, Send(pack_packet(Command.RESET))]

    def _next(self) -> None:
        del self._pending[0]
        self._offset = 0

    def _error(self, transfer: bytes) -> str | None:
        try:
            packet = parse_packet(transfer, self._source)
        except FormatError:
            return None
        if packet.command is not Command.END_OF_IMAGE or not packet.values[1]:
            return None
        return _status(packet.values[1])

    def _refused(self, reason: str) -> list[Event]:
        self._asked = self._got = 0
        if self._state is _State.TABLE:
            raise FormatError(self._source, f"refuses its region table: {reason}")
        event = Failure(self._pending[0], self._offset, reason)
        self._next()
        return [event, *self._ask_for_more()]


def _status(number: int) -> str:
    try:
        name = SaharaStatus(number).name
    except ValueError:
        return f"status {number:#x}"
    return f"status {number:#x} ({name.lower().replace('_', ' ')})"
