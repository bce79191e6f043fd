# SPDX-License-Identifier: GPL-2.0-or-later
"""A page of memory in which a process says what it does, also if it is killed."""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from enum import IntEnum

__all__ = ["STATE_SIZE", "Partner", "StatePage", "label"]

STATE_SIZE = 4096
"""Bytes of a page."""
_FIELDS = struct.Struct("<8I")
_LABEL = 256
"""Bytes of a step's label."""
_STEP = _FIELDS.size
_HELD = _STEP + _LABEL
_NAME = STATE_SIZE - _HELD
"""Bytes of a name, which may be a path."""
_CUT = 9
"""Bytes that stand for what was cut off."""


def label(text: str) -> str:
    """Return a name for a step that fits into a page, and is another one for each."""
    raw = text.encode("utf-8", "backslashreplace").replace(b"\0", b"\\0")
    if len(raw) < _LABEL:
        return raw.decode()
    start = raw[: _LABEL - 1 - _CUT].decode("utf-8", "ignore")
    return f"{start}~{zlib.crc32(raw):08x}"


class Partner(IntEnum):
    """Who a process works with."""

    NONE = 0
    PERSON = 1
    """A person at a prompt, who may take all the time, and interrupts questions."""
    STREAM = 2
    """Another program, whose questions cannot be read twice."""
    DEBUGGER = 3
    """It is a debugger by now, which nothing limits."""


class StatePage:
    """
    Memory that a process shares with the one that waits for it.

    Only the process that works writes to it.

    :param fd: Its file, which belongs to this object; by default, a new one.
    """

    def __init__(self, fd: int | None = None) -> None:
        if fd is None:
            fd = os.memfd_create("kmemdump-state", os.MFD_CLOEXEC)
            os.ftruncate(fd, STATE_SIZE)
        self.fd = fd
        self._memory = mmap.mmap(fd, STATE_SIZE)

    def detach(self) -> None:
        """Close the file, when it was passed on; the memory stays."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def close(self) -> None:
        """Release the memory."""
        self._memory.close()
        self.detach()

    def _get(self, index: int) -> int:
        return int(_FIELDS.unpack_from(self._memory)[index])

    def _set(self, index: int, value: int) -> None:
        struct.pack_into("<I", self._memory, 4 * index, value & 0xFFFFFFFF)

    def _get_text(self, at: int, size: int) -> str:
        raw = self._memory[at : at + size].partition(b"\0")[0]
        return raw.decode("utf-8", "surrogateescape")

    def _set_text(self, at: int, size: int, text: str) -> None:
        raw = text.encode("utf-8", "surrogateescape")[: size - 1]
        self._memory[at : at + size] = raw.ljust(size, b"\0")

    @property
    def serial(self) -> int:
        """Number of the step that was begun last."""
        return self._get(0)

    @property
    def step(self) -> str:
        """The step that the process is in; empty between steps."""
        if not self._get(1):
            return ""
        return self._get_text(_STEP, _LABEL)

    def begin(self, what: str) -> None:
        """Note that a step begins, by its :func:`label`."""
        self._set_text(_STEP, _LABEL, what)
        self._set(1, 1)
        self._set(0, self.serial + 1)

    def end(self) -> None:
        """Note that the step has ended."""
        self._set(1, 0)

    @property
    def signals(self) -> int:
        """How many signals the process has noticed; none while it runs C code."""
        return self._get(2)

    def note_signal(self) -> None:
        """Note that a signal was noticed."""
        self._set(2, self.signals + 1)

    @property
    def holds(self) -> bool:
        """Whether it has something that must not be left: a VM that is paused."""
        return self._get(3) > 0

    @property
    def held(self) -> str:
        """The name of what it has, which the other process knows; may be empty."""
        return self._get_text(_HELD, _NAME) if self.holds else ""

    def hold(self, value: bool, name: str = "") -> None:
        """Note that it has, or has no more; these nest, and the last name counts."""
        count = max(self._get(3) + (1 if value else -1), 0)
        if name or not count:
            self._set_text(_HELD, _NAME, name)
        self._set(3, count)

    @property
    def printed(self) -> int:
        """How many answers were printed."""
        return self._get(4)

    @printed.setter
    def printed(self, value: int) -> None:
        self._set(4, value)

    @property
    def failed(self) -> bool:
        """Whether one of the answers that were printed lacks something."""
        return bool(self._get(5))

    @failed.setter
    def failed(self, value: bool) -> None:
        self._set(5, int(value))

    @property
    def partner(self) -> Partner:
        """Who the process works with."""
        return Partner(self._get(6))

    @partner.setter
    def partner(self, value: Partner) -> None:
        self._set(6, value)
