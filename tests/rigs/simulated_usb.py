# SPDX-License-Identifier: GPL-2.0-or-later
"""
A phone in ramdump mode as a USB device: descriptors, and transfers cut into packets.

It is plugged into pyusb here (:class:`Bus`), or into a real kernel (``usbip.py``).
"""

import errno
import struct
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TypeAlias

import usb.backend
import usb.core

from kmemdump.formats.sahara_device import Device

OUT, IN = 0x01, 0x81
PRODUCT = "QUSB_BULK_CID:0402_SN:A1B2C3D4"


def _fields(layout: str, names: str, *values: int) -> tuple[bytes, SimpleNamespace]:
    packed = struct.pack(layout, *values)
    pairs = zip(names.split(), values, strict=True)
    return packed, SimpleNamespace(**dict(pairs), extra_descriptors=b"")


Bytes: TypeAlias = "array[int]"


class SimulatedUsb:
    """
    :param device: The device that answers.
    :param packet: Largest bulk packet in bytes.
    :param zero_packets: Whether a transfer of whole packets ends with an empty one.
    """

    def __init__(
        self,
        device: Device,
        *,
        product: str = PRODUCT,
        product_id: int = 0x900E,
        protocol: int = 0x10,
        packet: int = 512,
        zero_packets: bool = True,
        limit: int = 1 << 40,
    ) -> None:
        self.device = device
        self.product = product
        self.packet = packet
        self.zero_packets = zero_packets
        self.limit = limit
        """Bytes after which it is gone."""
        self.driver = True
        """Whether a driver of the kernel holds it."""
        self._request = b""
        self._packets: deque[bytes] = deque()
        self.device_raw, self.device_fields = _fields(
            "<BBHBBBBHHHBBBB",
            "bLength bDescriptorType bcdUSB bDeviceClass bDeviceSubClass "
            "bDeviceProtocol bMaxPacketSize0 idVendor idProduct bcdDevice "
            "iManufacturer iProduct iSerialNumber bNumConfigurations",
            *(18, 1, 0x200, 0, 0, 0, 64, 0x05C6, product_id, 0, 1, 2, 0, 1),
        )
        self.config_raw, self.config_fields = _fields(
            "<BBHBBBBB",
            "bLength bDescriptorType wTotalLength bNumInterfaces bConfigurationValue "
            "iConfiguration bmAttributes bMaxPower",
            *(9, 2, 32, 1, 1, 0, 0x80, 1),
        )
        self.interface_raw, self.interface_fields = _fields(
            "<BBBBBBBBB",
            "bLength bDescriptorType bInterfaceNumber bAlternateSetting bNumEndpoints "
            "bInterfaceClass bInterfaceSubClass bInterfaceProtocol iInterface",
            *(9, 4, 0, 0, 2, 0xFF, 0xFF, protocol, 0),
        )
        self.endpoints = [
            _fields(
                "<BBBBHB",
                "bLength bDescriptorType bEndpointAddress bmAttributes wMaxPacketSize "
                "bInterval",
                *(7, 5, address, 2, packet, 0),
            )
            for address in (IN, OUT)
        ]
        for _, fields in self.endpoints:  # Only audio has these two.
            fields.bRefresh = fields.bSynchAddress = 0
        self._answer(device.start())

    def text(self, index: int) -> bytes:
        """Return a string descriptor."""
        body = b"\x09\x04"
        if index:
            body = ("QUALCOMM" if index == 1 else self.product).encode("utf-16-le")
        return bytes([2 + len(body), 3]) + body

    def control(self, kind: int, request: int, value: int) -> bytes | None:
        """Answer a request to endpoint 0; ``None`` if it is not known."""
        if kind == 0x80 and request == 6:
            which, index = value >> 8, value & 0xFF
            configuration = self.config_raw + self.interface_raw
            configuration += b"".join(raw for raw, _ in self.endpoints)
            if which in (1, 2):
                return self.device_raw if which == 1 else configuration
            return self.text(index) if which == 3 and index < 3 else None
        if kind == 0x80 and request == 0:
            return b"\0\0"
        return b"" if kind in (0, 1, 2) else None

    def write(self, data: bytes) -> None:
        """Take packets from the host; a short one ends a transfer."""
        self._request += data
        if len(data) % self.packet == 0 and data:
            return
        request, self._request = self._request, b""
        self._answer(self.device.receive(request))

    def read(self, room: int) -> bytes | None:
        """Return packets until one is short or the room is full; ``None`` if none."""
        if not self._packets:
            return None
        data = b""
        while self._packets and len(data) < room:
            packet = self._packets.popleft()
            data += packet
            if len(packet) < self.packet:
                break
        if len(data) > room:
            raise OverflowError  # As real hosts' hardware does.
        self.limit -= len(data)
        if self.limit < 0:
            raise ConnectionError
        return data

    def _answer(self, data: bytes) -> None:
        for at in range(0, len(data), self.packet):
            self._packets.append(data[at : at + self.packet])
        if len(data) % self.packet == 0 and self.zero_packets:
            self._packets.append(b"")


class Bus(usb.backend.IBackend):  # type: ignore[misc]
    """The backend in which pyusb finds simulated devices."""

    def __init__(
        self, *devices: SimulatedUsb, refuse: Callable[[], None] = lambda: None
    ) -> None:
        self._devices = devices
        self._refuse = refuse

    def enumerate_devices(self) -> Iterator[SimulatedUsb]:
        return iter(self._devices)

    def get_device_descriptor(self, dev: SimulatedUsb) -> object:
        place = {"port_numbers": None, "port_number": None, "speed": 3}
        return SimpleNamespace(
            **vars(dev.device_fields), bus=1, address=1 + self._devices.index(dev),
            **place,
        )  # fmt: skip

    def get_configuration_descriptor(self, dev: SimulatedUsb, config: int) -> object:
        if config:
            raise IndexError
        return dev.config_fields

    def get_interface_descriptor(
        self, dev: SimulatedUsb, intf: int, alt: int, config: int
    ) -> object:
        if intf or alt:
            raise IndexError
        return dev.interface_fields

    def get_endpoint_descriptor(
        self, dev: SimulatedUsb, ep: int, intf: int, alt: int, config: int
    ) -> object:
        return dev.endpoints[ep][1]

    def open_device(self, dev: SimulatedUsb) -> SimulatedUsb:
        self._refuse()
        return dev

    def close_device(self, dev_handle: SimulatedUsb) -> None:
        pass

    def get_configuration(self, dev_handle: SimulatedUsb) -> int:
        return 1

    def is_kernel_driver_active(self, dev_handle: SimulatedUsb, intf: int) -> bool:
        return dev_handle.driver

    def detach_kernel_driver(self, dev_handle: SimulatedUsb, intf: int) -> None:
        dev_handle.driver = False

    def claim_interface(self, dev_handle: SimulatedUsb, intf: int) -> None:
        if dev_handle.driver:
            raise usb.core.USBError("Resource busy", -6, errno.EBUSY)

    def release_interface(self, dev_handle: SimulatedUsb, intf: int) -> None:
        pass

    def bulk_write(
        self,
        dev_handle: SimulatedUsb,
        ep: int,
        intf: int,
        data: Bytes,
        timeout: int,
    ) -> int:
        assert ep == OUT
        dev_handle.write(data.tobytes())
        return len(data)

    def bulk_read(
        self,
        dev_handle: SimulatedUsb,
        ep: int,
        intf: int,
        buff: Bytes,
        timeout: int,
    ) -> int:
        assert ep == IN
        try:
            data = dev_handle.read(len(buff))
        except ConnectionError:
            raise usb.core.USBError("No such device", -4, errno.ENODEV) from None
        except OverflowError:
            raise usb.core.USBError("Overflow", -8, errno.EOVERFLOW) from None
        if data is None:
            raise usb.core.USBTimeoutError("Operation timed out", -7, errno.ETIMEDOUT)
        buff[: len(data)] = array("B", data)
        return len(data)

    def ctrl_transfer(
        self, dev_handle: SimulatedUsb, kind: int, request: int, value: int, index: int,
        data: Bytes, timeout: int,
    ) -> int:  # fmt: skip
        answer = dev_handle.control(kind, request, value)
        if answer is None:
            raise usb.core.USBError("Pipe error", -9, errno.EPIPE)
        count = min(len(answer), len(data))
        data[:count] = array("B", answer[:count])
        return count
