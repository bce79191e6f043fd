# SPDX-License-Identifier: GPL-2.0-or-later
"""
kdump-compressed dumps, flattened or not.

Pages that are not compressed, or compressed with zlib, are read here: QEMU's dumps lack
header fields that libkdumpfile needs. Other compressions are left to drgn.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections import OrderedDict
from collections.abc import Sequence

from drgn import FaultError, Platform, PlatformFlags, Program

from kmemdump.arch.architecture import arch_from_name
from kmemdump.errors import FormatError, NotCapturedError, UnsupportedError
from kmemdump.files import OpenFile
from kmemdump.formats.flat import FLAT_MAGIC, FlatFile, parse_flat
from kmemdump.formats.kdump import Compression, Kdump, PageDescriptor, parse_kdump
from kmemdump.memory.ranges import PackedRanges, Range
from kmemdump.targets.file import FileTarget, check_whole
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["KdumpMemory", "open_kdump"]

logger = logging.getLogger(__name__)

_CACHED_PAGES = 4096


class KdumpMemory:
    """
    Physical memory in a kdump-compressed dump.

    :param file: The dump; owned by this object from here on.
    :param flat: The dump reassembled, if it is flattened.
    """

    def __init__(
        self, file: OpenFile, dump: Kdump, flat: FlatFile | None = None
    ) -> None:
        self._file = file
        self._is_flat = flat is not None
        self._read = file.read if flat is None else flat.read
        self._dump = dump
        self._pages: OrderedDict[int, bytes] = OrderedDict()
        self._program: Program | None = None
        ranges = PackedRanges()
        for address, size in dump.ranges():
            ranges.append(address, size)
        self.ranges: Sequence[Range] = ranges

    def read(self, address: int, size: int) -> bytes:
        page_size = self._dump.page_size
        pieces = []
        end = address + size
        while address < end:
            frame, skip = divmod(address, page_size)
            count = min(end - address, page_size - skip)
            pieces.append(self._page(frame)[skip : skip + count])
            address += count
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _page(self, frame: int) -> bytes:
        address = frame * self._dump.page_size
        try:
            found = self._dump.descriptor(self._read, frame)
            if found is None:
                raise NotCapturedError(f"{self._file.name} does not hold {address:#x}")
            # Pages of zeros share one offset.
            page = self._pages.get(found.offset)
            if page is None:
                page = self._pages[found.offset] = self._decompress(found, address)
                if len(self._pages) > _CACHED_PAGES:
                    self._pages.popitem(last=False)
        except FormatError as error:
            raise NotCapturedError(str(error)) from error
        return page

    def _decompress(self, stored: PageDescriptor, address: int) -> bytes:
        size = self._dump.page_size
        where = f"{self._file.name}+{stored.offset:#x}"
        if stored.flags & ~Compression.ZLIB:
            return self._read_with_drgn(address, size)
        page = self._read(stored.offset, stored.size)
        if len(page) != stored.size:
            raise FormatError(where, f"the file ends, expected page {address:#x}")
        if stored.flags:
            try:
                page = zlib.decompressobj().decompress(page, size)
            except zlib.error as error:
                raise FormatError(where, f"page {address:#x}: {error}") from error
            if len(page) != size:
                raise FormatError(where, f"page {address:#x}: {len(page)} bytes in it")
        return page

    def _read_with_drgn(self, address: int, size: int) -> bytes:
        if self._program is None:
            self._program = self._open_with_drgn()
        try:
            page: bytes = self._program.read(address, size, physical=True)
            return page
        except FaultError as error:
            raise NotCapturedError(f"{self._file.name}: {error}") from error

    def _open_with_drgn(self) -> Program:
        flags = PlatformFlags.IS_64_BIT | PlatformFlags.IS_LITTLE_ENDIAN
        platform = None
        if self._dump.machine is not None:
            platform = Platform(arch_from_name(self._dump.machine).drgn, flags)
        program = Program(platform)
        try:
            program.set_core_dump(os.dup(self._file.fd))  # drgn closes it.
        except Exception as error:  # drgn raises Exception for errors of libkdumpfile.
            name = self._file.name
            hint = f"convert it with makedumpfile -c {name} NEW, which uses zlib"
            if self._is_flat:
                hint = f"reassemble it first, with makedumpfile -R NEW <{name}"
            raise UnsupportedError(
                f"{name}: its pages are compressed with LZO, Snappy or Zstandard, and "
                f"drgn cannot open the dump: {error}\n{hint}"
            ) from error
        return program

    def check_compression(self) -> None:
        """
        Open now what will be needed to decompress the pages.

        :raises UnsupportedError: If that fails.
        """
        first = self.ranges[0].start if self.ranges else 0
        try:
            stored = self._dump.descriptor(self._read, first // self._dump.page_size)
        except FormatError:
            return  # Damage of one page.
        if stored is not None and stored.flags & ~Compression.ZLIB:
            self._program = self._open_with_drgn()

    def close(self) -> None:
        self._program = None
        self._pages.clear()
        self._file.close()


def open_kdump(
    file: OpenFile, vmcoreinfo: VmcoreInfo | None = None, damaged: bool = False
) -> FileTarget:
    """
    Open a kdump-compressed dump.

    :raises FormatError: If the dump is damaged.
    :raises UnsupportedError: If its architecture is not supported.
    """
    flat = None
    lacks: list[str] = []
    if file.read(0, len(FLAT_MAGIC)) == FLAT_MAGIC:
        flat = parse_flat(file.read, file.size, file.name)
        lacks += check_whole(file, file.size + flat.missing, damaged)
    if flat is not None:
        dump = parse_kdump(flat.read, flat.size, file.name)
    else:
        dump = parse_kdump(file.read, file.size, file.name, file.next_data)
    if flat is None:
        lacks += check_whole(file, dump.end(file.read), damaged or dump.incomplete)
    for problem in dump.problems:
        logger.warning("%s", problem)
    lacks += dump.problems
    if dump.incomplete:
        missing, count = len(dump.pages) - dump.held, len(dump.pages)
        problem = (
            "is marked incomplete, as makedumpfile does if its disk is full: "
            f"{missing} of {count} pages are missing"
        )
        logger.warning("%s: %s", file.name, problem)
        lacks.append(problem)
    info = vmcoreinfo
    if info is None and dump.vmcoreinfo is not None:
        info = VmcoreInfo.parse(dump.vmcoreinfo, f"{file.name}: VMCOREINFO")
    machine = 0
    if dump.machine is not None:
        try:
            machine = arch_from_name(dump.machine).machine
        except UnsupportedError as error:
            raise UnsupportedError(f"{file.name}: utsname.machine: {error}") from None
    memory = KdumpMemory(file, dump, flat)
    memory.check_compression()
    target = FileTarget(file.name, machine, memory, dump.notes, info)
    target.lacks = lacks
    return target if machine else target.find_machine()
