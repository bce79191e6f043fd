# SPDX-License-Identifier: GPL-2.0-or-later
"""
Download a device in ramdump mode: its regions become files in a folder, with a list.

The files keep the device's data unchanged; they can be put together even if the
download was cut off.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kmemdump.errors import FormatError, KmemdumpError, OutputError, TargetError
from kmemdump.firmware_dumps.folder import INFO_NAME, info_line
from kmemdump.formats.sahara import MAX_PACKET, DeviceRow
from kmemdump.formats.sahara_host import (
    Data,
    Failure,
    Finished,
    SaharaHost,
    Send,
    TableReceived,
)
from kmemdump.targets import Closing

__all__ = [
    "Connection",
    "Downloaded",
    "SocketConnection",
    "check_empty",
    "download",
]

_MAX_BYTES = 64 << 30
_BLOCK = 4096
"""Bytes that the end of a file may take besides its own."""
_STRANGE = re.compile(r"[^A-Za-z0-9_.-]")
_TRANSFER = 1 << 20


class Connection(Protocol):
    """A connection to a device that keeps transfers apart, as USB does."""

    def send(self, data: bytes) -> None:
        """
        Send one transfer.

        :raises TargetError: If the device is gone.
        """

    def receive(self, limit: int) -> bytes:
        """
        Receive one transfer.

        :param limit: Maximum number of bytes.
        :raises TargetError: If the device is gone, or sends nothing for too long.
        """


class SocketConnection(Closing):
    """
    A Unix socket that speaks Sahara: the lab's device, or a bridge to USB.

    :param path: Path of the socket; SOCK_SEQPACKET is tried first.
    :param timeout: For each transfer, in seconds.
    """

    def __init__(self, path: Path, timeout: float = 30.0) -> None:
        self._name = str(path)
        for kind in (socket.SOCK_SEQPACKET, socket.SOCK_STREAM):
            self._socket = socket.socket(socket.AF_UNIX, kind)
            self._socket.settimeout(timeout)
            try:
                self._socket.connect(str(path))
            except OSError as error:
                self._socket.close()
                if kind is socket.SOCK_STREAM:
                    raise TargetError(f"{path}: {error}") from error
            else:
                return

    def send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise TargetError(f"{self._name}: {error}") from error

    def receive(self, limit: int) -> bytes:
        try:
            data = self._socket.recv(limit)
        except OSError as error:
            raise TargetError(f"{self._name}: {error}") from error
        if not data:
            raise TargetError(f"{self._name}: the device has closed the connection")
        return data

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


@dataclass(frozen=True, slots=True)
class Downloaded:
    """The files of a device."""

    rows: tuple[DeviceRow, ...]
    """The device's whole table."""
    files: tuple[str, ...]
    """Names in the folder, one for each row that was wanted."""
    problems: tuple[str, ...]


def check_empty(folder: Path) -> None:
    """
    Refuse a folder that has files: they would be taken for the device's.

    :raises KmemdumpError: If it has any, or cannot be read.
    """
    try:
        used = folder.exists() and any(folder.iterdir())
    except OSError as error:
        raise KmemdumpError(f"{folder}: {error.strerror}") from error
    if used:
        raise KmemdumpError(
            f"{folder}: is not empty, expected a new folder for the dump"
        )


def download(
    connection: Connection,
    folder: Path,
    *,
    wanted: Callable[[Sequence[DeviceRow]], Iterable[DeviceRow]] = tuple,
    source: str = "device",
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Downloaded:
    """
    Download a device's regions into a folder, and let it restart.

    :param folder: Created if it does not exist; must be empty.
    :param wanted: Chooses rows of the table; all by default.
    :param progress: Called with a file's name, and how many of its bytes have arrived.
    :raises TargetError: If the device goes away. The folder keeps what arrived before.
    :raises FormatError: If the device breaks the protocol; the device is then reset.
    :raises OutputError: If the disk is full. The device is not reset: it has the only
        copy of what is left.
    """
    output = _DownloadFolder(folder, wanted, progress)
    host = SaharaHost(source, wanted=output.choose)
    try:
        while not host.finished:
            limit = min(host.expected, _TRANSFER) if host.expected else MAX_PACKET
            for event in host.receive(connection.receive(limit)):
                if isinstance(event, Send):
                    connection.send(event.data)
                elif isinstance(event, TableReceived):
                    output.rows = event.rows
                elif isinstance(event, Data):
                    output.write(event)
                elif isinstance(event, Failure):
                    output.fail(event)
                else:
                    assert isinstance(event, Finished)
    except FormatError:
        with suppress(TargetError):
            connection.send(host.reset())
        raise
    finally:
        output.close()
    return Downloaded(output.rows, tuple(output.names), tuple(output.problems))


class _DownloadFolder:
    def __init__(
        self,
        folder: Path,
        wanted: Callable[[Sequence[DeviceRow]], Iterable[DeviceRow]],
        progress: Callable[[str, int, int], None],
    ) -> None:
        self.rows: tuple[DeviceRow, ...] = ()
        self.names: list[str] = []
        self.problems: list[str] = []
        self._folder = folder
        self._wanted = wanted
        self._progress = progress
        self._chosen: list[DeviceRow] = []
        self._current = -1
        self._fd = -1
        check_empty(folder)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise KmemdumpError(f"{folder}: {error.strerror}") from error

    def choose(self, rows: Sequence[DeviceRow]) -> list[DeviceRow]:
        """Choose what to download, and write the list of it."""
        self._chosen = list(self._wanted(rows))
        total = sum(row.size for row in self._chosen)
        if total > _MAX_BYTES:
            raise FormatError(
                "region table", f"{total} bytes in all, expected at most {_MAX_BYTES}"
            )
        taken = {INFO_NAME}
        for row in self._chosen:
            name = _file_name(row, taken)
            if name != row.file_name:
                self.problems.append(f"{row.file_name!r} is saved as {name}")
            taken.add(name.lower())
            self.names.append(name)
        pairs = zip(self.names, self._chosen, strict=True)
        lines = [info_line(name, row.address, row.size) for name, row in pairs]
        room = shutil.disk_usage(self._folder).free
        if total + _BLOCK * (1 + len(self._chosen)) > room:
            raise OutputError(
                f"{self._folder}: {room} bytes are free, and the device gives {total}\n"
                "choose another disk, or fewer files (--only)"
            )
        self._create(INFO_NAME)
        self._put("".join(lines).encode())
        return self._chosen

    def write(self, event: Data) -> None:
        if event.offset == 0:
            self._next(event.row)
        self._put(event.data)
        name = self.names[self._current]
        self._progress(name, event.offset + len(event.data), event.row.size)

    def fail(self, event: Failure) -> None:
        if event.offset == 0:
            self._next(event.row)
        self.problems.append(
            f"{self.names[self._current]}: the device gave {event.offset} of "
            f"{event.row.size} bytes: {event.reason}"
        )

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _next(self, row: DeviceRow) -> None:
        self._current += 1
        assert self._chosen[self._current] is row
        self._create(self.names[self._current])

    def _create(self, name: str) -> None:
        self.close()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with self._translated():
            self._fd = os.open(self._folder / name, flags, 0o600)

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        with self._translated():
            while view:
                view = view[os.write(self._fd, view) :]

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"cannot write into {self._folder}: {error.strerror}"
            ) from error


def _file_name(row: DeviceRow, taken: set[str]) -> str:
    """Return a name that no other file has, on any file system."""
    name = _STRANGE.sub("_", row.file_name).lstrip(".") or f"{row.address:x}.BIN"
    stem, dot, ending = name.rpartition(".")
    count = 1
    while name.lower() in taken:
        count += 1
        name = f"{stem or ending}~{count}{dot}{ending if stem else ''}"
    return name
