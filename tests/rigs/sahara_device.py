# SPDX-License-Identifier: GPL-2.0-or-later
"""A device in ramdump mode that speaks Sahara over a socket."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from kmemdump.collect.sahara import Downloaded, SocketConnection, download
from kmemdump.errors import NotCapturedError
from kmemdump.formats.sahara import DeviceRow, name_row
from kmemdump.formats.sahara_device import Device
from rigs.phone import Phone

__all__ = ["Serve", "fetch", "reader", "rows_of", "serving", "talk"]

TRANSFER = 16384

Serve = Callable[..., Path]


def rows_of(phone: Phone) -> list[DeviceRow]:
    return [name_row(row.name, row.address, len(row.padded)) for row in phone.table]


def reader(phone: Phone) -> Callable[[int, int], bytes]:
    def read(address: int, size: int) -> bytes:
        for row in phone.table:
            if row.address <= address and address + size <= row.address + len(
                row.padded
            ):
                return row.padded[address - row.address :][:size]
        raise NotCapturedError("nothing there")

    return read


def talk(device: Device, connection: socket.socket, limit: int) -> None:
    """Act as the device, until *limit* bytes have been sent."""
    answer = device.start()
    while True:
        for at in range(0, len(answer), TRANSFER):
            piece = answer[at : at + TRANSFER][:limit]
            connection.sendall(piece)
            limit -= len(piece)
            if not limit:
                return
        request = b"" if device.finished else connection.recv(4096)
        if not request:
            return
        answer = device.receive(request)


@contextmanager
def serving(folder: Path) -> Iterator[Serve]:
    """Yield ``serve(device, kind)``: the socket of a device, for one connection."""
    with ExitStack() as stack:

        def start(
            device: Device, kind: int = socket.SOCK_SEQPACKET, limit: int = 1 << 30
        ) -> Path:
            path = folder / f"device{len(list(folder.iterdir()))}"
            listener = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
            listener.bind(str(path))
            listener.listen(1)
            listener.settimeout(10)

            def run() -> None:
                # The other side may go away at any time.
                with suppress(OSError):
                    connection, _ = listener.accept()
                    with connection:
                        talk(device, connection, limit)

            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            stack.callback(thread.join, 10)
            return path

        yield start


def fetch(path: Path, folder: Path, **settings: Any) -> Downloaded:
    with SocketConnection(path) as connection:
        return download(connection, folder, **settings)
