# SPDX-License-Identifier: GPL-2.0-or-later
"""
Simulated boot firmware after a crash: it dumps what a guest's minidump table names.

It knows where SMEM is, but neither the kernel nor the table's writer. It leaves
its dump in the three forms of real firmware: a folder of files, an image in a
partition, and a device in ramdump mode.

Real firmware saves the registers of CPUs in a vendor format. This one saves ELF notes.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from kmemdump.errors import FormatError, KmemdumpError, NotCapturedError, TargetError
from kmemdump.files import PartialFile
from kmemdump.formats.elf import (
    NT_PRSTATUS,
    PT_NOTE,
    ProgramHeader,
    header_size,
    pack_header,
    pack_note,
    parse_core,
)
from kmemdump.formats.minidump import (
    MINIDUMP_ITEM,
    TableRegion,
    Word,
    parse_regions,
    parse_toc,
    region_array_size,
)
from kmemdump.formats.sahara import name_row
from kmemdump.formats.sahara_device import Device
from kmemdump.formats.smem import HOST_ANY, parse_smem
from kmemdump.lab.machine import Machine
from kmemdump.lab.reserved import smem_range
from kmemdump.memory.physical import FileMemory
from kmemdump.memory.ranges import Extent

__all__ = ["Firmware"]

_APPLICATIONS = 0  # Linux's subsystem.
_CONTEXT = TableRegion("CPUS", 0, Word.VALI, 0xFE000000, 0)
"""Registers, in the firmware's own memory outside of RAM."""
_NAME = re.compile(r"[A-Za-z0-9_]{1,15}")
_MAX_REGION = 512 << 20
_CHUNK = 1 << 20
_TRANSFER = 16384


@dataclass(frozen=True, slots=True)
class _DumpFile:
    row: TableRegion
    data: bytes | None
    """``None``: the RAM at that address."""

    @property
    def name(self) -> str:
        return f"md_{self.row.name}.BIN"

    @property
    def size(self) -> int:
        return self.row.size if self.data is None else len(self.data)


class Firmware:
    """
    The simulated firmware of a machine of the lab, once its kernel is dead.

    :param machine: Paused; the caller closes it.
    :raises KmemdumpError: If there is nothing to dump.
    """

    def __init__(self, machine: Machine) -> None:
        setup = machine.setup
        if machine.ram is None or not setup.firmware:
            raise TargetError("this machine has no firmware that dumps regions")
        ram = Extent(setup.architecture.ram, setup.memory << 20, 0)
        fd = os.open(machine.ram, os.O_RDONLY | os.O_CLOEXEC)
        self._memory = FileMemory(fd, [ram], "RAM of the dead machine")
        self.refused: list[str] = []
        """Rows that are not dumped, and why."""
        try:
            self._files = [_DumpFile(row, None) for row in self._rows(machine)]
            self._files.append(_DumpFile(_CONTEXT, _read_registers(machine)))
        except BaseException:
            self._memory.close()
            raise

    @property
    def names(self) -> list[str]:
        """Names of the files that it leaves."""
        return [item.name for item in self._files]

    def close(self) -> None:
        self._memory.close()

    def leave_folder(self, folder: Path) -> None:
        """Leave a file for each region, like a tool that downloads all of a device."""
        folder.mkdir(mode=0o700)  # Memory of a kernel.
        for item in self._files:
            with open(folder / item.name, "wb") as file:
                for block in self._contents(item):
                    file.write(block)

    def leave_image(self, path: Path) -> None:
        """Leave a ``Raw_Dmp!`` image, which firmware writes to a partition."""
        offset = _HEADER.size + _SECTION.size * len(self._files)
        sections = []
        for item in self._files:
            kind = _CPU_CONTEXT if item.data is not None else _VENDOR
            address = 0 if item.data is not None else item.row.address
            name = item.name.encode()
            fields = (1, 0x1000, kind, offset, item.size, address, 0, name)
            sections.append(_SECTION.pack(*fields))
            offset += item.size
        header = (b"Raw_Dmp!", 0x1000, 1, 0, 0, 0, offset, 0, len(self._files))
        with PartialFile(path) as file:
            file.write(_HEADER.pack(*header) + b"".join(sections))
            for item in self._files:
                for block in self._contents(item):
                    file.write(block)

    @contextmanager
    def device(self, path: Path) -> Iterator[None]:
        """Act as a device in ramdump mode behind a Unix socket, for one host."""
        rows = [
            name_row(item.row.name, item.row.address, item.size) for item in self._files
        ]
        device = Device(rows, self._read_for_host)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(path))
            listener.listen(1)
            thread = threading.Thread(target=_serve, args=(listener, device))
            thread.start()
            try:
                yield
            finally:
                with suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)
                thread.join()

    def _rows(self, machine: Machine) -> Iterator[TableRegion]:
        where = smem_range(machine.setup.architecture)
        data = self._memory.read(where.start, where.size)
        item = parse_smem(data, "SMEM", address=where.start).lookup(
            HOST_ANY, MINIDUMP_ITEM
        )
        raw = self._memory.read(item.address, item.size)
        row = parse_toc(raw, "minidump table").subsystems[_APPLICATIONS]
        if not row.initialized or row.enabled != Word.ENBL:
            raise TargetError("nothing is registered with the firmware")
        if row.encryption_status != Word.DONE or row.encryption_required != Word.NR:
            raise TargetError(
                "the firmware would encrypt the dump with its vendor's key, which the "
                "lab does not have: mark with --no-encryption"
            )
        size = region_array_size(row, "minidump table")
        array = self._memory.read(row.regions_address, size)
        for region in parse_regions(array, row.region_count, "minidump table"):
            problem = self._judge(region)
            if problem is None:
                yield region
            else:
                self.refused.append(f"{region.name}: {problem}")

    def _judge(self, region: TableRegion) -> str | None:
        if not region.is_valid:
            return "is not valid"
        if not _NAME.fullmatch(region.name):
            return "is not a file name"
        if not 0 < region.size <= _MAX_REGION:
            return f"has {region.size} bytes"
        try:
            self._memory.read(region.address, 1)
            self._memory.read(region.address + region.size - 1, 1)
        except NotCapturedError:
            return f"{region.address:#x} is not in RAM"
        return None

    def _contents(self, item: _DumpFile) -> Iterator[bytes]:
        if item.data is not None:
            yield item.data
            return
        for at in range(0, item.row.size, _CHUNK):
            count = min(_CHUNK, item.row.size - at)
            yield self._memory.read(item.row.address + at, count)

    def _read_for_host(self, address: int, size: int) -> bytes:
        context = self._files[-1]
        start = address - context.row.address
        if context.data is not None and 0 <= start <= context.size - size:
            return context.data[start : start + size]
        return self._memory.read(address, size)


_HEADER = struct.Struct("<8sIIQQIQQI")
_SECTION = struct.Struct("<IIIQQQQ20s")
_CPU_CONTEXT, _VENDOR = 2, 3


def _read_registers(machine: Machine) -> bytes:
    """Return the registers of all CPUs: NT_PRSTATUS notes in an ELF core file."""
    path = machine.folder / "cpus"
    path.unlink(missing_ok=True)
    machine.control.execute(
        "dump-guest-memory",
        {
            "paging": False,
            "protocol": f"file:{path}",
            "begin": machine.setup.architecture.ram + 4096,
            "length": 4096,
        },
    )
    data = path.read_bytes()
    core = parse_core(lambda at, count: data[at : at + count], len(data), "registers")
    notes = b"".join(
        pack_note("CORE", NT_PRSTATUS, note.desc)
        for note in core.notes
        if note.name == "CORE" and note.type == NT_PRSTATUS
    )
    if not notes:
        raise FormatError("registers", "QEMU's dump holds no CPU")
    start, size = header_size(1), len(notes)
    header = ProgramHeader(PT_NOTE, 0, start, 0, 0, size, size, 4)
    return pack_header(core.machine, [header]) + notes


def _serve(listener: socket.socket, device: Device) -> None:
    # The host may go away at any time.
    with suppress(OSError, KmemdumpError):
        connection, _ = listener.accept()
        with connection:
            answer = device.start()
            while True:
                for at in range(0, len(answer), _TRANSFER):
                    connection.sendall(answer[at : at + _TRANSFER])
                request = b"" if device.finished else connection.recv(4096)
                if not request:
                    return
                answer = device.receive(request)
