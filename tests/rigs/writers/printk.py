# SPDX-License-Identifier: GPL-2.0-or-later
"""A printk ring as the kernel writes it."""

import struct
from dataclasses import dataclass, field

RESERVED, COMMITTED, FINALIZED, REUSABLE = range(4)
FAILED_LPOS, NO_LPOS = 1, 3
ULONG = 1 << 64
IDS = 1 << 62


@dataclass
class Desc:
    """struct prb_desc and struct printk_info of one index."""

    id: int
    state: int = REUSABLE
    begin: int = FAILED_LPOS
    next: int = FAILED_LPOS
    seq: int = 0
    time: int = 0
    length: int = 0
    text: str = ""
    """The text that was to be written."""


@dataclass
class RingWriter:
    """
    The writers of Linux' printk_ringbuffer.c, one at a time.

    Functions have the kernel's names. With *tight*, as in newer kernels, a block that
    ends where the ring does is not wrapped. Since Linux kernel commit 67e1b0052f6b
    ("printk_ringbuffer: don't needlessly wrap data blocks around") (in v6.19).
    """

    count_bits: int
    size_bits: int
    tight: bool = False
    descs: list[Desc] = field(init=False)
    head_id: int = field(init=False)

    def __post_init__(self) -> None:
        self.count, self.size = 1 << self.count_bits, 1 << self.size_bits
        self.head_id = self.tail_id = -(self.count + 1) % IDS  # DESC0_ID
        self.head_lpos = self.tail_lpos = -self.size % ULONG  # BLK0_LPOS
        self.descs = [Desc(0) for _ in range(self.count)]
        self.descs[-1].id = self.head_id
        self.text = bytearray(self.size)
        self.clock = 0
        self.seq = 0

    def desc(self, id: int) -> Desc:
        return self.descs[id % self.count]

    def wraps(self, lpos: int) -> int:
        return lpos % ULONG // self.size

    def write(self, text: str, *, commit: bool = True) -> Desc | None:
        """Write a record; return its descriptor, or None if there is no room."""
        desc = self.desc_reserve()
        if desc is None:
            return None
        data = text.encode()
        desc.text, desc.length = text, len(data)
        desc.seq, self.seq = self.seq, self.seq + 1
        desc.time, self.clock = self.clock, self.clock + 1_000_001
        if not data:
            desc.begin = desc.next = NO_LPOS
        elif not self.data_alloc(desc, data):
            desc.begin = desc.next = FAILED_LPOS
            desc.length = 0
        last = self.desc((desc.id - 1) % IDS)  # desc_make_final()
        if last.state == COMMITTED:
            last.state = FINALIZED
        if commit:
            desc.state = COMMITTED
        return desc

    def desc_reserve(self) -> Desc | None:
        id = (self.head_id + 1) % IDS
        if (id - self.count) % IDS == self.tail_id and not self.desc_push_tail():
            return None
        self.head_id = id
        self.descs[id % self.count] = Desc(id, RESERVED)
        return self.desc(id)

    def desc_push_tail(self) -> bool:
        desc = self.desc(self.tail_id)
        if desc.state in (RESERVED, COMMITTED):
            return False
        desc.state = REUSABLE
        if not desc.begin & 1 and not self.data_push_tail(desc.next):
            return False
        following = self.desc((self.tail_id + 1) % IDS)
        if following.state not in (FINALIZED, REUSABLE):
            return False
        self.tail_id = (self.tail_id + 1) % IDS
        return True

    def data_push_tail(self, lpos: int) -> bool:
        # Until the block at the tail begins at or after lpos.
        while 0 < (lpos - self.tail_lpos) % ULONG <= self.size:
            at = self.tail_lpos % self.size
            (id,) = struct.unpack_from("<Q", self.text, at)
            desc = self.desc(id)
            assert desc.id == id
            assert desc.begin == self.tail_lpos
            if desc.state not in (FINALIZED, REUSABLE):
                return False
            desc.state = REUSABLE
            self.tail_lpos = desc.next
        return True

    def data_alloc(self, desc: Desc, data: bytes) -> bool:
        size = 8 + -(-len(data) // 8) * 8
        begin = self.head_lpos
        end = (begin + size) % ULONG
        wrapped = self.wraps(begin) != self.wraps(end - (1 if self.tight else 0))
        if wrapped:
            end = self.wraps(end) * self.size + size
        if size > self.size // 2 or not self.data_push_tail((end - self.size) % ULONG):
            return False
        self.head_lpos = end
        struct.pack_into("<Q", self.text, begin % self.size, desc.id)
        at = begin % self.size
        if wrapped:
            at = 0
            struct.pack_into("<Q", self.text, at, desc.id)
        self.text[at + 8 : at + size] = data.ljust(size - 8, b"\xa5")
        desc.begin, desc.next = begin, end
        return True
