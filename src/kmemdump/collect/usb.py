# SPDX-License-Identifier: GPL-2.0-or-later
"""
A device in ramdump mode on USB: the transport of Sahara.

It needs pyusb (the extra ``usb``) and libusb. Devices, interfaces and endpoints are
chosen as in qdl's ``usb.c``.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from kmemdump.errors import TargetError, UnsupportedError
from kmemdump.installing import describe_extra, describe_install
from kmemdump.memory.ranges import round_up
from kmemdump.targets import Closing

if TYPE_CHECKING:
    import usb.core

__all__ = ["UsbConnection"]

_QUALCOMM = 0x05C6
_VENDOR_CLASS = 0xFF
_PROTOCOLS = (0xFF, 0x10, 0x11, 0x13)
_EMPTY_TRANSFERS = 4
"""Maximum of empty transfers in a row; one ends each transfer of whole packets."""
_SERIAL = "_SN:"
"""Precedes the serial number in the name of a product."""

_ACCESS = "run it as root, or give yourself the device with a udev rule"
_SILENCE = (
    "it sends its table only once: if another program has asked for it, restart the "
    "device into ramdump mode"
)


class UsbConnection(Closing):
    """
    A device in ramdump mode on USB.

    :param serial: Its serial number; by default, there must be only one device.
    :param timeout: For each transfer, in seconds.
    :param backend: pyusb's backend; by default the first that works.
    :raises UnsupportedError: If pyusb or libusb is not installed.
    :raises TargetError: If there is no such device, or several, or it is in use.
    """

    def __init__(
        self, serial: str | None = None, timeout: float = 30.0, backend: Any = None
    ) -> None:
        try:
            import usb.core
            import usb.util
        except ImportError as error:
            raise UnsupportedError(
                "usb: pyusb is not installed\n"
                f"install it, and libusb 1.0: {describe_extra('usb')}"
            ) from error
        self._usb = usb
        self._timeout = round(timeout * 1000)
        try:
            self._device, self._interface = self._choose(serial, backend)
            self.name = _describe(self._device)
            self._claim()
        except usb.core.NoBackendError as error:
            raise UnsupportedError(
                "usb: libusb 1.0 is not installed\n"
                f"install it: {describe_install('libusb')}"
            ) from error
        except usb.core.USBError as error:
            raise self._explain("usb", error) from error

    def send(self, data: bytes) -> None:
        """Send one transfer. See :class:`kmemdump.collect.sahara.Connection`."""
        try:
            self._out.write(data, self._timeout)
            # After a full packet the device expects more; an empty one is the end.
            if len(data) % self._out.wMaxPacketSize == 0:
                self._out.write(b"", self._timeout)
        except self._usb.core.USBError as error:
            raise self._explain(self.name, error) from error

    def receive(self, limit: int) -> bytes:
        """Receive one transfer. See :class:`kmemdump.collect.sahara.Connection`."""
        packet = self._in.wMaxPacketSize
        # A multiple of the packet size: libusb drops a packet that does not fit.
        room = round_up(limit, packet)
        try:
            for _ in range(_EMPTY_TRANSFERS):
                data = self._in.read(room, self._timeout).tobytes()
                if data:
                    return bytes(data)
        except self._usb.core.USBError as error:
            raise self._explain(self.name, error) from error
        raise TargetError(f"{self.name}: sends only empty transfers")

    def close(self) -> None:
        """Release the device."""
        self._usb.util.dispose_resources(self._device)

    def _choose(
        self, serial: str | None, backend: Any
    ) -> tuple[usb.core.Device, usb.core.Interface]:
        found = list(
            self._usb.core.find(find_all=True, idVendor=_QUALCOMM, backend=backend)
        )
        fitting = [
            (device, interface)
            for device in found
            if (interface := _find_interface(device)) is not None
            and serial in (None, _serial(device))
        ]
        if len(fitting) == 1:
            return fitting[0]
        names = ", ".join(_describe(device) for device in found) or "none"
        if fitting:
            raise TargetError(
                f"usb: {len(fitting)} devices, expected one: {names}\n"
                "say which one with usb:SERIAL"
            )
        wanted = f"device with serial number {serial}" if serial else "device"
        raise TargetError(
            f"usb: no {wanted} in ramdump mode; Qualcomm devices here: {names}\n"
            "a device whose kernel has died shows up as 05c6:900e or so, if its "
            "download mode is on"
        )

    def _claim(self) -> None:
        number = self._interface.bInterfaceNumber
        util = self._usb.util
        # Linux's qcserial takes some of these devices for modems.
        try:
            if self._device.is_kernel_driver_active(number):
                self._device.detach_kernel_driver(number)
        except NotImplementedError:  # Not on this operating system.
            pass
        util.claim_interface(self._device, number)
        bulk = [it for it in self._interface if _is_bulk(it)]
        self._in = next(it for it in bulk if it.bEndpointAddress & util.ENDPOINT_IN)
        self._out = next(
            it for it in bulk if not it.bEndpointAddress & util.ENDPOINT_IN
        )

    def _explain(self, name: str, error: usb.core.USBError) -> TargetError:
        if isinstance(error, self._usb.core.USBTimeoutError):
            return TargetError(
                f"{name}: sent nothing for {self._timeout / 1000:g} s\n{_SILENCE}"
            )
        advice = ""
        if error.errno in (errno.EACCES, errno.EPERM):
            advice = f"\n{_ACCESS}"
        elif error.errno == errno.EBUSY:
            advice = "\nanother program uses it"
        return TargetError(f"{name}: {error.strerror or error}{advice}")


def _find_interface(device: usb.core.Device) -> usb.core.Interface | None:
    for configuration in device:
        for interface in configuration:
            bulk = [it.bEndpointAddress >> 7 for it in interface if _is_bulk(it)]
            if (
                interface.bInterfaceClass == _VENDOR_CLASS
                and interface.bInterfaceSubClass == _VENDOR_CLASS
                and interface.bInterfaceProtocol in _PROTOCOLS
                and 0 in bulk
                and 1 in bulk
            ):
                return interface
    return None


def _is_bulk(endpoint: usb.core.Endpoint) -> bool:
    # A hostile device may say 0, by which receive() would divide.
    return bool(endpoint.bmAttributes & 3 == 2 and endpoint.wMaxPacketSize > 0)


def _serial(device: usb.core.Device) -> str | None:
    import usb.core

    try:
        text = usb.util.get_string(device, device.iProduct) or ""
    # pyusb raises ValueError if it may not open the device.
    except (usb.core.USBError, NotImplementedError, ValueError):
        return None
    _, mark, rest = text.partition(_SERIAL)
    return rest.split("_")[0].split(" ")[0] if mark else None


def _describe(device: usb.core.Device) -> str:
    name = f"usb {device.idVendor:04x}:{device.idProduct:04x}"
    serial = _serial(device)
    return f"{name} (serial number {serial})" if serial else name
