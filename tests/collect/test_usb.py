# SPDX-License-Identifier: GPL-2.0-or-later
"""A device on USB: the same download as from a socket, below it pyusb's own code."""

import errno
import sys
from pathlib import Path

import pytest
import usb.core

from kmemdump.collect.sahara import download
from kmemdump.collect.usb import UsbConnection
from kmemdump.errors import FormatError, TargetError, UnsupportedError
from kmemdump.firmware_dumps.folder import collect_folder
from kmemdump.firmware_dumps.target import DumpTarget
from kmemdump.formats.sahara import name_row
from kmemdump.formats.sahara_device import Device
from kmemdump.kernel.attach import attach
from kmemdump.questions.crash_commands import command
from kmemdump.questions.question import answer
from rigs.phone import LOG, Phone
from rigs.sahara_device import reader, rows_of
from rigs.simulated_usb import Bus, SimulatedUsb


def simulated(phone: Phone | None = None, **settings: object) -> SimulatedUsb:
    phone = phone or Phone.with_log()
    wide = settings.pop("wide", True)
    return SimulatedUsb(Device(rows_of(phone), reader(phone), wide=wide), **settings)


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("packet", [64, 512, 1024])
@pytest.mark.parametrize("zero_packets", [True, False])
def test_download(tmp_path: Path, packet: int, zero_packets: bool, wide: bool) -> None:
    device = simulated(packet=packet, zero_packets=zero_packets, wide=wide)
    with UsbConnection(backend=Bus(device)) as connection:
        assert connection.name == "usb 05c6:900e (serial number A1B2C3D4)"
        download(connection, tmp_path / "dump")
    assert device.device.finished
    collected = collect_folder(tmp_path / "dump")
    assert (collected.problems, collected.missing) == ((), ())
    assert answer(attach(DumpTarget(collected)).prog, command("log")) == LOG


def test_refusal_where_less_was_asked_for(tmp_path: Path) -> None:
    """An error has 16 bytes, and must arrive where 4 were expected."""
    phone = Phone.with_log()
    rows = [*rows_of(phone), name_row("Kgone", 0x2000000, 4)]
    device = SimulatedUsb(Device(rows, reader(phone)))
    with UsbConnection(backend=Bus(device)) as connection:
        saved = download(connection, tmp_path / "dump")
    assert saved.problems[-1].endswith("status 0x19 (invalid memory read)")


def test_device_is_unplugged(tmp_path: Path) -> None:
    device = simulated(limit=16000)
    with (
        UsbConnection(backend=Bus(device)) as connection,
        pytest.raises(TargetError, match=r"^usb 05c6:900e .*: No such device"),
    ):
        download(connection, tmp_path / "dump")
    assert (tmp_path / "dump/md_KELF.BIN").exists()


def test_silence_is_explained() -> None:
    device = simulated()
    with UsbConnection(backend=Bus(device)) as connection:
        connection.receive(4096)
        with pytest.raises(TargetError, match="nothing for 30 s\nit sends its table"):
            connection.receive(4096)


def test_nothing_but_empty_transfers() -> None:
    device = simulated()
    device._packets.extendleft([b""] * 10)
    with (
        UsbConnection(backend=Bus(device)) as connection,
        pytest.raises(TargetError, match="empty transfers"),
    ):
        connection.receive(4096)


def test_choice() -> None:
    other = simulated(product="QUSB_BULK_SN:FFFF extra", product_id=0x9091)
    modem = simulated(protocol=0x30)  # Not one that Sahara speaks through.
    bus = Bus(simulated(), other, modem)
    with UsbConnection("FFFF", backend=bus) as connection:
        assert connection.name == "usb 05c6:9091 (serial number FFFF)"
    with pytest.raises(TargetError, match="2 devices, expected one: usb 05c6:900e"):
        UsbConnection(backend=bus)
    with pytest.raises(TargetError, match="no device with serial number 12"):
        UsbConnection("12", backend=bus)
    with pytest.raises(TargetError, match=r"no device in ramdump mode.* here: none"):
        UsbConnection(backend=Bus())
    with pytest.raises(TargetError, match="here: usb 05c6:900e"):
        UsbConnection(backend=Bus(modem))


def test_device_that_has_not_crashed(tmp_path: Path) -> None:
    """In EDL mode (05c6:9008) it waits for a programmer."""
    device = simulated(product_id=0x9008)
    hello = bytearray(device._packets.popleft())
    hello[20] = 0
    device._packets.appendleft(bytes(hello))
    with (
        UsbConnection(backend=Bus(device)) as connection,
        pytest.raises(FormatError, match="is in mode 0, expected 2"),
    ):
        download(connection, tmp_path / "dump", source=connection.name)


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.EACCES, "udev rule"), (errno.EBUSY, "another program uses it")],
)
def test_device_that_may_not_be_opened(number: int, advice: str) -> None:
    def refuse() -> None:
        raise usb.core.USBError("refused", 0, number)

    with pytest.raises(TargetError, match=f"refused\n.*{advice}"):
        UsbConnection(backend=Bus(simulated(), refuse=refuse))


def test_without_pyusb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "usb.core", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'kmemdump\[usb\]'"):
        UsbConnection()


def test_without_libusb(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(**_: object) -> None:
        raise usb.core.NoBackendError("No backend available")

    monkeypatch.setattr(usb.core, "find", find)
    with pytest.raises(UnsupportedError, match=r"libusb 1\.0 is not installed"):
        UsbConnection()
