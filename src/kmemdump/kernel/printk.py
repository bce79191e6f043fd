# SPDX-License-Identifier: GPL-2.0-or-later
"""
The kernel log, read with nothing but VMCOREINFO.

The ring buffer is that of Linux kernel commit 896fbe20b4e2 ("printk: use the
lockless ringbuffer") (in v5.10); its layout is exported through VMCOREINFO, so
neither types nor symbols are needed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.kernel.partial_read import Held, ReadVirtual, read_held
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["Log", "LogRecord", "format_log", "format_record", "format_time", "read_log"]

_MAX_COUNT_BITS = 22
"""Descriptors: 4 Mi, far above what LOG_BUF_SHIFT's limit of 25 gives."""
_MAX_TEXT_BITS = 31
"""LOG_BUF_LEN_MAX is 2 GiB."""
_MAX_RING_BYTES = 1 << 30
"""More than this is not read into memory at once."""

_MAX_STRUCT = 4096
"""Far above sizeof(struct printk_info), 88 bytes with what udev is told."""

_ULONG_MAX = (1 << 64) - 1
_ID_BITS = 62
_ID_MASK = (1 << _ID_BITS) - 1
_COMMITTED, _FINALIZED = 1, 2  # enum desc_state
_LOG_CONT = 8  # enum printk_info_flags
_NO_TEXT = 3  # EMPTY_LINE_LPOS of kernel/printk/printk_ringbuffer.h

_ULONG = struct.Struct("<Q")
_LPOS = struct.Struct("<QQ")


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record of the kernel log."""

    sequence: int
    nanoseconds: int
    """Since boot."""
    level: int
    """0 (emergency) to 7 (debug)."""
    facility: int
    caller: int
    """Thread id, or with bit 31 set, CPU."""
    continuation: bool
    text: str


@dataclass(frozen=True, slots=True)
class Log:
    """What is left of the kernel log."""

    records: list[LogRecord]
    lost: int
    """Records whose text had no room in the ring any more, or is damaged."""
    missing: int = 0
    """Records that the dump does not hold, or not all of them."""

    def check(self) -> None:
        """
        Complain if it is not whole.

        :raises NotCapturedError: If records are missing.
        """
        if self.missing:
            count = len(self.records) + self.lost + self.missing
            raise NotCapturedError(
                f"{self.missing} of {count} records are missing, with the memory that "
                "they were in"
            )


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where things are in the structures of the ring."""

    desc_size: int
    state: int
    lpos: int
    info_size: int
    sequence: int
    time: int
    length: int
    caller: int

    @classmethod
    def of(cls, info: VmcoreInfo) -> _Layout:
        def size(name: str) -> int:
            return _checked(info, f"SIZE({name})", info.size(name), 8, _MAX_STRUCT)

        def offset(name: str, size: int, room: int) -> int:
            value = info.offset(name)
            return _checked(info, f"OFFSET({name})", value, 0, size - room)

        desc, record = size("prb_desc"), size("printk_info")
        return cls(
            desc_size=desc,
            state=offset("prb_desc.state_var", desc, _ULONG.size),
            lpos=offset("prb_desc.text_blk_lpos", desc, _LPOS.size),
            info_size=record,
            sequence=offset("printk_info.seq", record, _ULONG.size),
            time=offset("printk_info.ts_nsec", record, _ULONG.size),
            # Two bytes more: u8 facility; u8 flags:5, level:3.
            length=offset("printk_info.text_len", record, 4),
            caller=offset("printk_info.caller_id", record, 4),
        )


def _checked(info: VmcoreInfo, name: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise FormatError(info.source, f"{name} is {value}, expected {low} to {high}")
    return value


def read_log(read: ReadVirtual, info: VmcoreInfo) -> Log:
    """
    Read the kernel log.

    A record whose text wraps around the end of the ring starts over at the
    beginning of the ring, behind a second block id.

    Of a ring that is not there as a whole, it returns the records that are.

    :raises NotCapturedError: If VMCOREINFO does not describe the ring. If no record
        is there, *read* raises what it likes.
    :raises FormatError: If the ring is damaged.
    """

    def word(address: int) -> int:
        value: int = _ULONG.unpack(read(address & _ULONG_MAX, _ULONG.size))[0]
        return value

    def member(struct_name: str, name: str) -> int:
        return info.offset(f"{struct_name}.{name}")

    layout = _Layout.of(info)
    ring = word(info.symbol("prb"))
    descs = ring + member("printk_ringbuffer", "desc_ring")
    texts = ring + member("printk_ringbuffer", "text_data_ring")
    count_bits = word(descs + member("prb_desc_ring", "count_bits")) & 0xFFFFFFFF
    size_bits = word(texts + member("prb_data_ring", "size_bits")) & 0xFFFFFFFF
    where = f"{info.source}: prb at {ring:#x}"
    if not 0 < count_bits <= _MAX_COUNT_BITS or not 3 < size_bits <= _MAX_TEXT_BITS:
        raise FormatError(
            where,
            f"2^{count_bits} descriptors and 2^{size_bits} bytes of text, expected at "
            f"most 2^{_MAX_COUNT_BITS} and 2^{_MAX_TEXT_BITS}: not a log, or damaged",
        )
    count = 1 << count_bits
    need = count * (layout.desc_size + layout.info_size) + (1 << size_bits)
    if need > _MAX_RING_BYTES:
        raise FormatError(where, f"log of {need} bytes, expected at most 1 GiB")
    head = word(descs + member("prb_desc_ring", "head_id")) & _ID_MASK
    tail = word(descs + member("prb_desc_ring", "tail_id")) & _ID_MASK
    held = (head - tail & _ID_MASK) + 1
    if held > count:
        raise FormatError(
            where, f"records {tail} to {head}, expected at most {count}: damaged"
        )

    def array(address: int, size: int) -> Held:
        if address + size > 1 << 64:
            raise FormatError(where, f"{size} bytes at {address:#x}, which wrap around")
        return read_held(read, address, size)

    start = word(descs + member("prb_desc_ring", "descs"))
    desc_data = array(start, count * layout.desc_size)
    start = word(descs + member("prb_desc_ring", "infos"))
    info_data = array(start, count * layout.info_size)
    text = array(word(texts + member("prb_data_ring", "data")), 1 << size_bits)
    records: list[LogRecord] = []
    lost = missing = 0
    for step in range(held):
        current = tail + step & _ID_MASK
        index = current & count - 1
        try:
            desc = desc_data.part(index * layout.desc_size, layout.desc_size)
            (state,) = _ULONG.unpack_from(desc, layout.state)
            if state & _ID_MASK != current or state >> _ID_BITS not in (
                _COMMITTED,
                _FINALIZED,
            ):
                continue  # Reserved, or being reused: no record yet, or no more.
            begin, end = _LPOS.unpack_from(desc, layout.lpos)
            block = _block(text, begin, end, current)
            if block is None:
                lost += 1
                continue
            record = info_data.part(index * layout.info_size, layout.info_size)
            records.append(_record(record, layout, block))
        except NotCapturedError:
            missing += 1
    if missing and not records:
        for item in (desc_data, info_data, text):
            if item.problem is not None:
                raise item.problem
    return Log(records, lost, missing)


def _block(text: Held, begin: int, end: int, owner: int) -> bytes | None:
    """
    Return the data of a block, padding included, ``None`` if it is lost.

    :param begin: Its logical positions: they count on over all turns of the ring.
    :param owner: Id of its descriptor.
    :raises NotCapturedError: If not all of it is there.
    """
    size = len(text.data)
    if begin & 1 and end & 1:  # LPOS_DATALESS
        return b"" if begin == end == _NO_TEXT else None
    first, stop = begin % size, end % size
    turn = begin // size
    if (begin | end) % _ULONG.size:
        return None
    # A block may end where the ring does; older kernels let such a one wrap.
    if (end - 1 & _ULONG_MAX) // size == turn:
        start, length = first, end - begin & _ULONG_MAX
    elif (end - size & _ULONG_MAX) // size == turn:
        start, length = 0, stop
    else:
        return None
    if not _ULONG.size <= length <= size - start:
        return None
    # Another id stands there if the block was used again, after the descriptor
    # was read: nothing stops a kernel that is looked at while it runs.
    if text.part(first, _ULONG.size) != _ULONG.pack(owner):
        return None
    return text.part(start, length)[_ULONG.size :]


def _record(data: bytes, layout: _Layout, block: bytes) -> LogRecord:
    length = int.from_bytes(data[layout.length : layout.length + 2], "little")
    facility, flags = data[layout.length + 2], data[layout.length + 3]
    return LogRecord(
        sequence=_ULONG.unpack_from(data, layout.sequence)[0],
        nanoseconds=_ULONG.unpack_from(data, layout.time)[0],
        level=flags >> 5,
        facility=facility,
        caller=int.from_bytes(data[layout.caller : layout.caller + 4], "little"),
        continuation=bool(flags & _LOG_CONT),
        text=block[:length].decode("utf-8", "replace"),
    )


def format_log(log: Log) -> str:
    """Return the log as dmesg prints it."""
    return "".join(f"{format_record(record)}\n" for record in log.records)


def format_time(nanoseconds: int) -> str:
    """Return a time since boot as the kernel prints it."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{seconds:5d}.{rest // 1000:06d}"


def format_record(record: LogRecord) -> str:
    """Return a record with its time stamp in seconds before each of its lines."""
    stamp = f"[{format_time(record.nanoseconds)}] "
    return "\n".join(stamp + line for line in record.text.split("\n"))
