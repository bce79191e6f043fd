# SPDX-License-Identifier: GPL-2.0-or-later
"""
The kernel log: printk's ring buffer, read with VMCOREINFO alone.

The ring buffer is that of Linux kernel commit 896fbe20b4e2 ("printk: use the
lockless ringbuffer") (in v5.10). VMCOREINFO has its layout, so neither types nor
symbols are needed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from typing import Protocol

from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.kernel.partial_read import PartialRead, ReadVirtual, read_partial
from kmemdump.memory.ranges import ADDRESS_SPACE
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = [
    "Log",
    "LogPlaces",
    "LogRecord",
    "find_log_places",
    "format_record",
    "format_time",
    "head_address",
    "read_log",
    "read_newest",
]

_MAX_COUNT_BITS = 22
"""At most 4 Mi descriptors; LOG_BUF_SHIFT, at its limit of 25, gives far fewer."""
_MAX_TEXT_BITS = 31
"""LOG_BUF_LEN_MAX is 2 GiB."""
_MAX_RING_BYTES = 1 << 30
"""Most bytes that are read into memory at once."""

_MAX_PIECE = 1 << 14
"""Most bytes of a record that are read by themselves; the kernel's limit is 2 KiB."""
_MAX_STRUCT = 4096
"""Far above sizeof(struct printk_info), 88 bytes with its struct dev_printk_info."""

_ULONG_MAX = ADDRESS_SPACE - 1
_ID_BITS = 62
_ID_MASK = (1 << _ID_BITS) - 1
_WHOLE = (1, 2)  # enum desc_state: desc_committed, desc_finalized
_REUSABLE = 3  # desc_reusable: free, as the first one of a new ring.
_LOG_CONT = 8  # enum printk_info_flags
_NO_TEXT = 3  # EMPTY_LINE_LPOS of kernel/printk/printk_ringbuffer.h

_ULONG = struct.Struct("<Q")
_LPOS = struct.Struct("<QQ")


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record of the kernel log."""

    sequence: int
    nanoseconds: int | None
    """Since boot; only a log that somebody saved may lack it."""
    level: int | None
    """0 (emergency) to 7 (debug); only a log that somebody saved may lack it."""
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
    """Records whose text was overwritten, or is damaged."""
    missing: int = 0
    """Records that the dump lacks, in whole or in part."""
    unfinished: int = field(default=0, compare=False)
    """Records that the kernel was just then writing."""

    def check(self) -> None:
        """
        Check that the log is complete.

        :raises NotCapturedError: If records are missing.
        """
        if self.missing:
            count = len(self.records) + self.lost + self.missing
            raise NotCapturedError(
                f"{self.missing} of {count} records are missing: their memory was not "
                "captured"
            )


@dataclass(frozen=True, slots=True)
class LogPlaces:
    """Virtual addresses and sizes in bytes of the parts of the ring."""

    structure: list[tuple[int, int]]
    """Descriptors; numbers, times and lengths of the records; ids of the texts."""
    texts: list[tuple[int, int]]
    """The text of each record."""
    whole: list[tuple[int, int]]
    """
    All records and texts. Besides the other two they hold names of devices and tasks,
    and what older and longer texts left behind the newer ones.
    """


@dataclass(frozen=True, slots=True)
class _Layout:
    """Sizes and offsets in bytes of the ring's structures."""

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
            # Two more bytes follow: u8 facility; u8 flags:5, level:3.
            length=offset("printk_info.text_len", record, 4),
            caller=offset("printk_info.caller_id", record, 4),
        )


def _checked(info: VmcoreInfo, name: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise FormatError(info.source, f"{name} is {value}, expected {low} to {high}")
    return value


@dataclass(frozen=True, slots=True)
class _Ring:
    """The ring buffer: ``struct printk_ringbuffer``."""

    source: str
    """Where the ring is, for messages."""
    count: int
    """Descriptors: a power of 2."""
    text_size: int
    """Bytes of text: a power of 2."""
    tail: int
    """Id of the oldest descriptor in use."""
    used: int
    """Descriptors in use."""
    descs: int
    """Address of the descriptors."""
    infos: int
    """Address of the ``struct printk_info`` of each descriptor."""
    text: int
    """Address of the texts."""


class _Array(Protocol):
    """A part of the ring."""

    def part(self, at: int, size: int) -> bytes:
        """
        Return bytes from an offset on.

        :raises NotCapturedError: If one of them is missing.
        """


@dataclass(frozen=True, slots=True)
class _Direct:
    """A part of the ring of a kernel that runs, of which little is wanted."""

    read: ReadVirtual
    address: int

    def part(self, at: int, size: int) -> bytes:
        if size > _MAX_PIECE:
            raise NotCapturedError(f"{size} bytes, more than {_MAX_PIECE}")
        return self.read(self.address + at & _ULONG_MAX, size)


def read_newest(read: ReadVirtual, info: VmcoreInfo, count: int) -> Log:
    """
    Read the last records of the kernel log, and no more memory than they take.

    :param read: Raises :exc:`NotCapturedError` where memory is missing.
    :param count: Most records to read.
    :raises NotCapturedError: If VMCOREINFO does not describe the ring.
    :raises FormatError: If the ring is damaged.
    """
    layout = _Layout.of(info)
    ring = _read_ring(read, info, layout)
    left_out = max(ring.used - count, 0)
    tail, used = ring.tail + left_out & _ID_MASK, ring.used - left_out
    ring = replace(ring, tail=tail, used=used)
    descs, infos, text = (
        _Direct(read, address) for address in (ring.descs, ring.infos, ring.text)
    )
    return _read_records(ring, layout, descs, infos, text)


def head_address(read: ReadVirtual, info: VmcoreInfo) -> int:
    """
    Return the virtual address of a word that changes with each record that is logged.

    :raises NotCapturedError: If VMCOREINFO does not describe the ring.
    :raises FormatError: If the ring is damaged.
    """
    _read_ring(read, info, _Layout.of(info))
    ring = int.from_bytes(read(info.symbol("prb"), _ULONG.size), "little")
    return (
        ring
        + info.offset("printk_ringbuffer.desc_ring")
        + info.offset("prb_desc_ring.head_id")
    )


def read_log(read: ReadVirtual, info: VmcoreInfo) -> Log:
    """
    Read the kernel log.

    If the dump does not hold all of the ring, the records that it holds are returned.

    :raises NotCapturedError: If VMCOREINFO does not describe the ring. If the dump
        holds no record, the exception of *read* is passed on.
    :raises FormatError: If the ring is damaged.
    """
    layout = _Layout.of(info)
    ring = _read_ring(read, info, layout)

    def array(address: int, size: int) -> PartialRead:
        if address + size > ADDRESS_SPACE:
            problem = f"{size} bytes at {address:#x}, which wrap around"
            raise FormatError(ring.source, problem)
        return read_partial(read, address, size)

    descs = array(ring.descs, ring.count * layout.desc_size)
    infos = array(ring.infos, ring.count * layout.info_size)
    text = array(ring.text, ring.text_size)
    log = _read_records(ring, layout, descs, infos, text)
    if log.missing and not log.records:
        for item in (descs, infos, text):
            if item.problem is not None:
                raise item.problem
    return log


def find_log_places(read: ReadVirtual, info: VmcoreInfo) -> LogPlaces:
    """
    Find where in memory the log's structure is, and where its texts.

    :raises NotCapturedError: If VMCOREINFO does not describe the ring.
    :raises FormatError: If the ring is damaged.
    """
    layout = _Layout.of(info)
    ring = _read_ring(read, info, layout)
    descs = read_partial(read, ring.descs, ring.count * layout.desc_size)
    infos = read_partial(read, ring.infos, ring.count * layout.info_size)
    text = read_partial(read, ring.text, ring.text_size)
    # After the caller, with 4 bytes, comes the name of a device.
    info_size = min(layout.caller + 4, layout.info_size)
    structure = [(ring.descs, ring.count * layout.desc_size)]
    texts: list[tuple[int, int]] = []
    for step in range(ring.used):
        current = ring.tail + step & _ID_MASK
        index = current & ring.count - 1
        structure.append((ring.infos + index * layout.info_size, info_size))
        try:
            desc = descs.part(index * layout.desc_size, layout.desc_size)
            begin, end = _LPOS.unpack_from(desc, layout.lpos)
            if begin & 1 and end & 1:
                continue
            place = _block_place(text, ring.text_size, begin, end, current)
            if place is None:
                continue
            record = infos.part(index * layout.info_size, layout.info_size)
        except NotCapturedError:
            continue
        start, length = place
        structure += [
            (ring.text + at, _ULONG.size) for at in {start, begin % ring.text_size}
        ]
        size = _text_size(record, layout)
        size = min(size, length - _ULONG.size)
        if size:
            texts.append((ring.text + start + _ULONG.size, size))
    whole = [(ring.infos, ring.count * layout.info_size), (ring.text, ring.text_size)]
    return LogPlaces(structure, texts, whole)


def _read_ring(read: ReadVirtual, info: VmcoreInfo, layout: _Layout) -> _Ring:
    """Read the ring's header, and check its sizes."""

    def word(address: int, member: str = "") -> int:
        address += info.offset(member) if member else 0
        return int.from_bytes(read(address & _ULONG_MAX, _ULONG.size), "little")

    address = word(info.symbol("prb"))
    descs = address + info.offset("printk_ringbuffer.desc_ring")
    texts = address + info.offset("printk_ringbuffer.text_data_ring")
    count_bits = word(descs, "prb_desc_ring.count_bits") & 0xFFFFFFFF
    size_bits = word(texts, "prb_data_ring.size_bits") & 0xFFFFFFFF
    source = f"{info.source}: prb at {address:#x}"
    if not 0 < count_bits <= _MAX_COUNT_BITS or not 3 < size_bits <= _MAX_TEXT_BITS:
        raise FormatError(
            source,
            f"2^{count_bits} descriptors and 2^{size_bits} bytes of text, expected at "
            f"most 2^{_MAX_COUNT_BITS} and 2^{_MAX_TEXT_BITS}: not a log, or damaged",
        )
    count = 1 << count_bits
    need = count * (layout.desc_size + layout.info_size) + (1 << size_bits)
    if need > _MAX_RING_BYTES:
        raise FormatError(source, f"log of {need} bytes, expected at most 1 GiB")
    head = word(descs, "prb_desc_ring.head_id") & _ID_MASK
    tail = word(descs, "prb_desc_ring.tail_id") & _ID_MASK
    used = (head - tail & _ID_MASK) + 1
    if used > count:
        raise FormatError(
            source, f"records {tail} to {head}, expected at most {count}: damaged"
        )
    return _Ring(
        source,
        count,
        1 << size_bits,
        tail,
        used,
        descs=word(descs, "prb_desc_ring.descs"),
        infos=word(descs, "prb_desc_ring.infos"),
        text=word(texts, "prb_data_ring.data"),
    )


def _read_records(
    ring: _Ring,
    layout: _Layout,
    descs: _Array,
    infos: _Array,
    text: _Array,
) -> Log:
    records: list[LogRecord] = []
    lost = missing = unfinished = 0
    # Blocks do not overlap, but for what a running kernel writes meanwhile.
    left = 2 * ring.text_size
    for step in range(ring.used):
        current = ring.tail + step & _ID_MASK
        index = current & ring.count - 1
        try:
            desc = descs.part(index * layout.desc_size, layout.desc_size)
            (state,) = _ULONG.unpack_from(desc, layout.state)
            if state & _ID_MASK != current or state >> _ID_BITS not in _WHOLE:
                # Reserved, so not yet a record, or being reused.
                unfinished += state >> _ID_BITS != _REUSABLE
                continue
            begin, end = _LPOS.unpack_from(desc, layout.lpos)
            record = infos.part(index * layout.info_size, layout.info_size)
            size = _text_size(record, layout)
            size = min(size, left)
            block = _block(text, ring.text_size, begin, end, current, size)
            if block is None:
                lost += 1
                continue
            left -= len(block)
            records.append(_record(record, layout, block))
        except NotCapturedError:
            missing += 1
    return Log(records, lost, missing, unfinished)


def _block(
    text: _Array, size: int, begin: int, end: int, owner: int, count: int
) -> bytes | None:
    """
    Return the text of a block; ``None`` if it was overwritten.

    :param size: Size of the ring of texts in bytes.
    :param begin: Its logical position, counted over all turns of the ring.
    :param end: The logical position of its end.
    :param owner: Id of its descriptor.
    :param count: Bytes of its text; padding follows.
    :raises NotCapturedError: If a part of it is missing.
    """
    if begin & 1 and end & 1:  # LPOS_DATALESS
        return b"" if begin == end == _NO_TEXT else None
    place = _block_place(text, size, begin, end, owner)
    if place is None:
        return None
    start, length = place
    return text.part(start + _ULONG.size, min(length - _ULONG.size, count))


def _block_place(
    text: _Array, size: int, begin: int, end: int, owner: int
) -> tuple[int, int] | None:
    """
    Return offset and size of a block, its id included; ``None`` if it was overwritten.

    A block that would wrap around the end of the ring starts again at the beginning of
    the ring, where its id is repeated.
    """
    first, stop = begin % size, end % size
    turn = begin // size
    if (begin | end) % _ULONG.size:
        return None
    # A block may end where the ring does; older kernels let such a block wrap.
    if (end - 1 & _ULONG_MAX) // size == turn:
        start, length = first, end - begin & _ULONG_MAX
    elif (end - size & _ULONG_MAX) // size == turn:
        start, length = 0, stop
    else:
        return None
    if not _ULONG.size <= length <= size - start:
        return None
    # The id differs if the kernel, which may be running, reused the block after the
    # descriptor was read.
    if text.part(first, _ULONG.size) != _ULONG.pack(owner):
        return None
    return start, length


def _text_size(info: bytes, layout: _Layout) -> int:
    return int.from_bytes(info[layout.length : layout.length + 2], "little")


def _record(data: bytes, layout: _Layout, text: bytes) -> LogRecord:
    facility, flags = data[layout.length + 2], data[layout.length + 3]
    return LogRecord(
        sequence=_ULONG.unpack_from(data, layout.sequence)[0],
        nanoseconds=_ULONG.unpack_from(data, layout.time)[0],
        level=flags >> 5,
        facility=facility,
        caller=int.from_bytes(data[layout.caller : layout.caller + 4], "little"),
        continuation=bool(flags & _LOG_CONT),
        text=text.decode("utf-8", "replace"),
    )


def format_time(nanoseconds: int) -> str:
    """Return a time since boot as the kernel prints it."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{seconds:5d}.{rest // 1000:06d}"


def format_record(record: LogRecord) -> str:
    """Return a record with its time stamp in seconds before each of its lines."""
    if record.nanoseconds is None:
        return record.text
    stamp = f"[{format_time(record.nanoseconds)}] "
    return "\n".join(stamp + line for line in record.text.split("\n"))
