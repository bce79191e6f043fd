# SPDX-License-Identifier: GPL-2.0-or-later
"""All that a dead phone can leave, in one folder, for the sessions of the manual."""

import socket
import threading
from pathlib import Path

from kmemdump.formats.sahara_device import Device
from rigs.kinfo_machine import ADDRESSES, machine_with
from rigs.machine import SMEM
from rigs.phone import Phone, Row, vmcoreinfo
from rigs.sahara_device import reader, rows_of, talk
from rigs.writers.kinfo import write_kinfo
from rigs.writers.ramoops import write_ramoops

__all__ = ["leave", "serve_device"]


def leave(folder: Path) -> None:
    """Fill a folder."""
    phone = Phone.with_log(wrapped=True)
    phone.rows.append(Row("Kramoops", 60, 0x80350000, write_ramoops(16)))
    phone.folder(folder / "dump", listed=True)
    (phone.folder(folder / "cut", listed=True) / "md_Klinux_ba11.BIN").unlink()
    phone.image(folder / "rawdump.img")
    (folder / "kinfo.bin").write_bytes(write_kinfo("android", image=ADDRESSES))
    note = b"\x0b\0\0\0" + len(vmcoreinfo()).to_bytes(4, "little") + bytes(4)
    for name, machine in (("ram.img", phone.machine()), ("kinfo.img", machine_with())):
        machine.put(0x80330000, note + b"VMCOREINFO\0\0" + vmcoreinfo())
        (folder / name).write_bytes(machine.data)
    assert SMEM.start == 0x80000000  # As in the manual's memory map.


def serve_device(path: Path) -> socket.socket:
    """Act as a device in ramdump mode behind a socket, for any number of downloads."""
    phone = Phone.with_log()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    listener.listen(1)

    def run() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                talk(Device(rows_of(phone), reader(phone)), connection, 1 << 30)

    threading.Thread(target=run, daemon=True).start()
    return listener
