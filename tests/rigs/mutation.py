# SPDX-License-Identifier: GPL-2.0-or-later
"""Make damaged inputs of good ones, a hundred thousand a second."""

import random
import struct
from collections.abc import Callable, Sequence

__all__ = ["Mutator"]

_LONGEST = 1 << 15
_MOST = 512
"""Inputs that are kept besides the seeds."""
# fmt: off
_NUMBERS = (
    0, 1, 2, 4, 8, 16, 127, 128, 255, 256, 4095, 4096, 32767, 32768, 65535, 65536,
    (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40, (1 << 63) - 1, 1 << 63,
    (1 << 64) - 1, (1 << 64) - 8, (1 << 64) - 4096,
)
# fmt: on
_WORDS = tuple(struct.pack("<Q", number) for number in _NUMBERS)
_DIGITS = (b"0", b"-1", b"18446744073709551615", b"9" * 30, b"0x", b"\n", b" ", b"\0")
_NO_DIGITS = str.maketrans("", "", "0123456789abcdef")


class Mutator:
    """
    Damages inputs at random, and keeps those that lead to something new.

    Which code they run is not seen; what a parser says is: an error that was not raised
    before, apart from numbers in it, or no error at all.

    :param seeds: Good inputs, of which there is at least one.
    """

    def __init__(self, seeds: Sequence[bytes], chance: random.Random) -> None:
        self._seeds = [seed[:_LONGEST] for seed in seeds]
        self._kept: list[bytes] = []
        self._chance = chance
        self._said: set[str] = set()
        self._ways: Sequence[Callable[[bytearray], None]] = (
            *[self._byte] * 4,
            *[self._bit] * 2,
            *[self._number] * 4,
            *[self._move] * 2,
            self._insert,
            self._delete,
            self._splice,
            self._digits,
        )

    def make(self) -> bytes:
        """Return another input."""
        chance = self._chance
        bits = chance.getrandbits(16)
        pool = self._kept if bits & 1 and self._kept else self._seeds
        data = bytearray(pool[int(chance.random() * len(pool))])
        for _ in range(1 + (bits >> 1 & bits >> 4 & 7)):
            if not data:
                return b""
            self._ways[int(chance.random() * 16)](data)
        return bytes(data[:_LONGEST])

    def learn(self, data: bytes, said: str | None) -> None:
        """
        Keep an input if it led to something new.

        :param said: The parser's error; ``None`` if there was none.
        """
        if said is not None:
            kind = said.translate(_NO_DIGITS)
            if kind in self._said or len(self._said) >= 4 * _MOST:
                return
            self._said.add(kind)
        elif self._chance.random() > 0.02:
            return
        if len(self._kept) < _MOST:
            self._kept.append(data)
        else:
            self._kept[int(self._chance.random() * _MOST)] = data

    def _place(self, data: bytearray) -> int:
        return int(self._chance.random() * len(data))

    def _byte(self, data: bytearray) -> None:
        data[self._place(data)] = self._chance.getrandbits(8)

    def _bit(self, data: bytearray) -> None:
        data[self._place(data)] ^= 1 << self._chance.getrandbits(3)

    def _number(self, data: bytearray) -> None:
        bits = self._chance.getrandbits(8)
        size = 1 << (bits & 3)
        at = self._place(data) & -size
        word = _WORDS[int(self._chance.random() * len(_WORDS))]
        if bits & 4:  # Close to what is there.
            near = int.from_bytes(data[at : at + size], "little")
            near += (bits >> 3) - 16
            word = (near % (1 << 64)).to_bytes(8, "little")
        data[at : at + size] = word[:size]

    def _move(self, data: bytearray) -> None:
        size = 1 << self._chance.getrandbits(3)
        here, there = self._place(data), self._place(data)
        data[here : here + size] = data[there : there + size]

    def _insert(self, data: bytearray) -> None:
        at, there = self._place(data), self._place(data)
        data[at:at] = data[there : there + (1 << self._chance.getrandbits(3))]

    def _delete(self, data: bytearray) -> None:
        at = self._place(data)
        if self._chance.getrandbits(2):
            del data[at : at + (1 << self._chance.getrandbits(3))]
        else:
            del data[at:]

    def _splice(self, data: bytearray) -> None:
        pool = self._kept or self._seeds
        other = pool[int(self._chance.random() * len(pool))]
        at = self._place(data)
        data[at:] = other[at:]

    def _digits(self, data: bytearray) -> None:
        at = self._place(data)
        text = _DIGITS[self._chance.getrandbits(3)]
        data[at : at + self._chance.getrandbits(2)] = text
