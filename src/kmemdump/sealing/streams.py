# SPDX-License-Identifier: GPL-2.0-or-later
"""Files for the library that seals, which keeps only the text of their errors."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

from kmemdump.files import OpenFile

__all__ = ["Input", "Output"]


class Input(io.RawIOBase):
    """
    The rest of a file, as long as it was when it was opened.

    What is added later would be unsealed into memory without end.

    :param offset: Where it begins.
    :param head: Its first bytes, which were checked: the file may have changed.
    """

    def __init__(self, file: OpenFile, offset: int, head: bytes) -> None:
        self._file = file
        self._head = head
        self._offset = offset
        self.problem: BaseException | None = None
        """Why it could not be read."""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if size > 0 and self._head:
            found, self._head = self._head[:size], self._head[size:]
            self._offset += len(found)
            return found
        try:
            left = max(self._file.size - self._offset, 0)
            count = min(size if size >= 0 else 1 << 16, left)
            found = self._file.read(self._offset, count)
        except BaseException as error:
            self.problem = error
            raise
        self._offset += len(found)
        return found


class Output(io.RawIOBase):
    """A file that is written, and flushed by whoever opened it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = 0
        """Bytes that were written."""
        self.problem: BaseException | None = None
        """Why it could not be written."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        try:
            count = self._file.write(data)
        except BaseException as error:
            self.problem = error
            raise
        self.size += count
        return count
