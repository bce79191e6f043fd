# SPDX-License-Identifier: GPL-2.0-or-later
"""
A simulated device on the USB of a real kernel: USB/IP serves it to vhci_hcd there.

The protocol is that of Linux Documentation/usb/usbip_protocol.rst, without its
introduction: the kernel gets a socket that is already connected. As a program in a
guest, it downloads from such a device, and prints the result.
"""

import errno
import hashlib
import socket
import struct
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmemdump.collect.sahara import download
from kmemdump.collect.usb import UsbConnection
from kmemdump.formats.sahara import name_row
from kmemdump.formats.sahara_device import Device
from rigs.simulated_usb import SimulatedUsb

_ATTACH = Path("/sys/devices/platform/vhci_hcd.0/attach")
_DEVICE_ID = 1 << 16 | 2
_HIGH_SPEED = 3

_HEADER = struct.Struct(">IIIII")
_SUBMIT = struct.Struct(">IiiiI8s")
_RETURN = struct.Struct(">iiiii8x")
_CMD_SUBMIT, _CMD_UNLINK, _RET_SUBMIT, _RET_UNLINK = 1, 2, 3, 4
_SHORT_NOT_OK = 1
_IN = 1


@dataclass
class _Urb:
    """A request of the kernel for data."""

    number: int
    room: int
    short_not_ok: bool


class Server(threading.Thread):
    """Serves one device on a socket until the socket is closed."""

    def __init__(self, device: SimulatedUsb, connection: socket.socket) -> None:
        super().__init__(daemon=True)
        self._device = device
        self._connection = connection
        self._waiting: deque[_Urb] = deque()

    def run(self) -> None:
        while True:
            try:
                kind, number, _, direction, endpoint = self._take(_HEADER)
                flags, length, _, _, _, setup = self._take(_SUBMIT)
            except EOFError:
                return
            if kind == _CMD_UNLINK:  # flags: the number to unlink.
                self._unlink(number, flags)
            elif endpoint == 0:
                self._control(number, direction, length, setup)
            elif direction == _IN:
                short = bool(flags & _SHORT_NOT_OK)
                self._waiting.append(_Urb(number, length, short))
            else:
                self._device.write(self._receive(length))
                self._answer(number, 0, length)
            self._serve_waiting()

    def _control(self, number: int, direction: int, length: int, setup: bytes) -> None:
        kind, request, value, _, _ = struct.unpack("<BBHHH", setup)
        if direction != _IN and length:
            self._receive(length)
        answer = self._device.control(kind, request, value)
        if answer is None:
            self._answer(number, -errno.EPIPE, 0)
        elif direction == _IN:
            self._answer(number, 0, len(answer[:length]), answer[:length])
        else:
            self._answer(number, 0, length)

    def _serve_waiting(self) -> None:
        while self._waiting:
            urb = self._waiting[0]
            data = self._device.read(urb.room)
            if data is None:
                return
            self._waiting.popleft()
            short = len(data) < urb.room and urb.short_not_ok
            status = -errno.EREMOTEIO if short else 0
            self._answer(urb.number, status, len(data), data)

    def _unlink(self, number: int, which: int) -> None:
        found = [urb for urb in self._waiting if urb.number == which]
        for urb in found:
            self._waiting.remove(urb)
        status = -errno.ECONNRESET if found else 0
        head = _HEADER.pack(_RET_UNLINK, number, 0, 0, 0)
        self._connection.sendall(head + _RETURN.pack(status, 0, 0, 0, 0))

    def _answer(self, number: int, status: int, length: int, data: bytes = b"") -> None:
        head = _HEADER.pack(_RET_SUBMIT, number, 0, 0, 0)
        body = _RETURN.pack(status, length, 0, 0, 0)
        self._connection.sendall(head + body + data)

    def _take(self, layout: struct.Struct) -> tuple[Any, ...]:
        return layout.unpack(self._receive(layout.size))

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._connection.recv(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data


def plug_in(device: SimulatedUsb) -> socket.socket:
    """Plug a device into this machine; it stays as long as the socket is open."""
    ours, kernels = socket.socketpair()
    Server(device, ours).start()
    _ATTACH.write_text(f"0 {kernels.fileno()} {_DEVICE_ID} {_HIGH_SPEED}\n")
    kernels.close()
    return ours


def wait_for_device() -> None:
    """Wait until the kernel has read the device's descriptors."""
    deadline = time.monotonic() + 60
    while not any(
        path.read_text().strip() == "05c6"
        for path in Path("/sys/bus/usb/devices").glob("*/idVendor")
    ):
        assert time.monotonic() < deadline, "the kernel has found no device"
        time.sleep(0.2)


def contents(size: int) -> bytes:
    return hashlib.sha256(b"%d" % size).digest() * (size // 32 + 1)


SIZES = (512, 4096, 13332, 65536 + 16, 1 << 20, 100)


def main(library: str, folder: Path) -> None:
    import usb.backend.libusb1

    memory = {(i + 1) << 24: contents(size)[:size] for i, size in enumerate(SIZES)}
    rows = [name_row(f"K{at >> 24}", at, len(data)) for at, data in memory.items()]
    rows.append(name_row("Kgone", 1 << 40, 4))

    def read(address: int, size: int) -> bytes:
        start = address >> 24 << 24
        return memory[start][address - start :][:size]

    class Forgetful(Device):
        def _answer_read(self, address: int, size: int) -> bytes:
            if address == 1 << 40:
                return bytes.fromhex("04000000100000000000000019000000")
            return super()._answer_read(address, size)

    device = Forgetful(rows, read)
    plugged = plug_in(SimulatedUsb(device))
    wait_for_device()
    # Only now: without udev, libusb does not learn of a new device.
    backend = usb.backend.libusb1.get_backend(find_library=lambda _: library)
    with UsbConnection(timeout=60, backend=backend) as connection:
        print(connection.name)
        saved = download(connection, folder)
    for (address, data), name in zip(memory.items(), saved.files, strict=False):
        same = (folder / name).read_bytes() == data
        print(f"{name} at {address:#x}: {len(data)} bytes, {'same' if same else 'BAD'}")
    print(*saved.problems, sep="\n")
    print("finished" if device.finished else "not finished")
    plugged.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
