# SPDX-License-Identifier: GPL-2.0-or-later
"""A printk ring in the memory of a kernel, and what VMCOREINFO says of it."""

import struct
from collections.abc import Mapping

from kmemdump.errors import FormatError
from kmemdump.kernel.partial_read import ReadVirtual
from kmemdump.kernel.printk import Log, LogRecord
from kmemdump.vmcoreinfo import VmcoreInfo
from rigs.writers.printk import (
    COMMITTED,
    FAILED_LPOS,
    FINALIZED,
    IDS,
    RingWriter,
)

# Any layout will do, as long as VMCOREINFO tells it.
DESC_SIZE, STATE_AT, LPOS_AT = 32, 8, 16
INFO_SIZE, SEQ_AT, TIME_AT, LENGTH_AT, CALLER_AT = 48, 0, 8, 16, 20
PRB, RING, DESCS, INFOS, TEXT = 0x1000, 0x2000, 0x10000, 0x80000, 0x100000
VMCOREINFO = f"""\
OSRELEASE=6.1.0
SYMBOL(prb)={PRB:x}
SIZE(printk_ringbuffer)=80
OFFSET(printk_ringbuffer.desc_ring)=0
OFFSET(printk_ringbuffer.text_data_ring)=48
OFFSET(prb_desc_ring.count_bits)=0
OFFSET(prb_desc_ring.descs)=8
OFFSET(prb_desc_ring.infos)=16
OFFSET(prb_desc_ring.head_id)=24
OFFSET(prb_desc_ring.tail_id)=32
SIZE(prb_desc)={DESC_SIZE}
OFFSET(prb_desc.state_var)={STATE_AT}
OFFSET(prb_desc.text_blk_lpos)={LPOS_AT}
SIZE(printk_info)={INFO_SIZE}
OFFSET(printk_info.seq)={SEQ_AT}
OFFSET(printk_info.ts_nsec)={TIME_AT}
OFFSET(printk_info.text_len)={LENGTH_AT}
OFFSET(printk_info.caller_id)={CALLER_AT}
OFFSET(prb_data_ring.size_bits)=0
OFFSET(prb_data_ring.data)=8
"""
INFO = VmcoreInfo.parse(VMCOREINFO.encode(), "test")


class Writer(RingWriter):
    """A ring in the memory of a kernel."""

    facility = 3
    """Of all records; 0 is the kernel's own."""

    def memory(self) -> ReadVirtual:
        """Return a function that reads kernel memory."""
        return memory(self.pieces())

    def pieces(self) -> dict[int, bytes]:
        """Return the kernel's memory, by virtual address."""
        ring = struct.pack(
            "<5Q", self.count_bits, DESCS, INFOS, self.head_id, self.tail_id
        )
        ring = ring.ljust(48, b"\0") + struct.pack("<2Q", self.size_bits, TEXT)
        descs, infos = bytearray(), bytearray()
        for item in self.descs:
            desc, info = bytearray(DESC_SIZE), bytearray(INFO_SIZE)
            struct.pack_into("<Q", desc, STATE_AT, item.state << 62 | item.id)
            struct.pack_into("<QQ", desc, LPOS_AT, item.begin, item.next)
            values = item.seq, item.time, item.length, self.facility, 6 << 5
            struct.pack_into("<QQHBB", info, SEQ_AT, *values)
            struct.pack_into("<I", info, CALLER_AT, item.seq & 0xFFFF)
            descs += desc
            infos += info
        return {
            PRB: struct.pack("<Q", RING),
            RING: ring,
            DESCS: bytes(descs),
            INFOS: bytes(infos),
            TEXT: bytes(self.text),
        }

    def expected(self) -> Log:
        """Return what a reader should find, and how many records it should miss."""
        records, lost = [], 0
        for step in range((self.head_id - self.tail_id) % IDS + 1):
            desc = self.desc((self.tail_id + step) % IDS)
            if desc.state not in (COMMITTED, FINALIZED):
                continue
            if desc.begin == desc.next == FAILED_LPOS:
                lost += 1
                continue
            caller = desc.seq & 0xFFFF
            values = desc.seq, desc.time, 6, self.facility, caller, False, desc.text
            records.append(LogRecord(*values))
        return Log(records, lost)


def memory(pieces: Mapping[int, bytes]) -> ReadVirtual:
    """Return a function that reads kernel memory."""

    def read(address: int, size: int) -> bytes:
        for start, data in pieces.items():
            if start <= address and address + size <= start + len(data):
                return data[address - start :][:size]
        raise FormatError("memory", f"nothing at {address:#x}")

    return read
