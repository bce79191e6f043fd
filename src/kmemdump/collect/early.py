# SPDX-License-Identifier: GPL-2.0-or-later
"""
Copying a folder's files into a core image before it is known what they are.

To load what finds that out takes Python as long as the disk takes for the files. So a
second process copies them meanwhile, each to a place of its own, and the headers, which
tell what is where, are written last. Nothing is loaded here that can come later.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn

from kmemdump.collect.names import MAX_FILES, is_device, is_piece, list_files
from kmemdump.errors import KmemdumpError
from kmemdump.files import PartialFile, open_again

__all__ = ["Copied", "EarlyCopy"]

_MAX_BYTES = 1 << 30
"""Of more than this, the start of Python is no part that counts."""
_CHUNK = 1 << 20
_AHEAD = 16
"""Files that the disk may read at once."""
_PAGE = 4096
_HEADER = b"\x7fELF"
_ANSWER = 5
"""Size of what the other process says of each file: whether it is copied, checksum."""


class Copied(NamedTuple):
    """A file that is in the core image."""

    offset: int
    """Where, in bytes."""
    size: int
    crc32: int


class _Place(NamedTuple):
    path: str
    offset: int
    size: int


class EarlyCopy:
    """
    A core image into which the files of a folder are being copied.

    At the end of a ``with`` statement's body it is given its name, or, if that raises,
    removed.

    :param source: As for :func:`~kmemdump.collect.open_source`; of what is no folder,
        nothing is copied.
    :raises KmemdumpError: If *path* cannot be written.
    """

    def __init__(self, source: str, path: str | os.PathLike[str]) -> None:
        self.source = source
        self.path = Path(path)
        self.problem: str | None = None
        """Why nothing was copied."""
        self._file = PartialFile(path)
        self._places = () if is_device(source) else _places(Path(source))
        self._pid = 0
        self._answers = -1
        self._done = False
        # A copy of a process with threads has the locks that others of them held.
        if self._places and threading.active_count() == 1:
            self._start()

    @property
    def output(self) -> BinaryIO:
        """Nothing else may be written to it before :meth:`wait` has returned."""
        return self._file.output

    def wait(self) -> dict[str, Copied]:
        """
        Wait until all is copied.

        :return: What is, by its path; nothing if anything went wrong, which then the
            one who copies everything again meets, too, and tells.
        """
        if not self._pid:
            return {}
        answers = b""
        # Not until the process ends: it may still wait for the disk.
        while len(answers) < len(self._places) * _ANSWER:
            more = os.read(self._answers, 1 << 16)
            if not more:
                self.problem = "something went wrong"
                return {}
            answers += more
        self._done = True
        copied = {}
        for i, place in enumerate(self._places):
            answer = answers[i * _ANSWER : (i + 1) * _ANSWER]
            if answer[0]:
                crc32 = int.from_bytes(answer[1:], "little")
                copied[place.path] = Copied(place.offset, place.size, crc32)
        return copied

    def discard(self) -> None:
        """Remove it, if it has no name yet."""
        self._stop()
        self._file.discard()

    def __enter__(self) -> EarlyCopy:
        return self

    def __exit__(self, problem: type[BaseException] | None, *_: object) -> None:
        if problem is None:
            self._stop()
            self._file.commit()
        else:
            self.discard()

    def _start(self) -> None:
        try:
            self._answers, writer = os.pipe()
            try:
                self._pid = os.fork()
            except OSError:
                os.close(self._answers)
                os.close(writer)
                raise
        except OSError as error:
            self.problem = f"cannot start a process: {error.strerror}"
            return
        if not self._pid:
            os.close(self._answers)
            _copy_and_exit(self._places, self.output, writer)
        os.close(writer)

    def _stop(self) -> None:
        if self._pid:
            if not self._done:
                import signal

                os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            os.close(self._answers)
            self._pid = 0


def _places(folder: Path) -> list[_Place]:
    """Give each file a place after what headers and notes may need."""
    try:
        sizes = list_files(folder)
    except (KmemdumpError, ValueError):
        return []  # No folder; others say what is wrong with it.
    names = sorted(name for name, size in sizes.items() if size and is_piece(name))
    if len(names) > MAX_FILES or sum(sizes[name] for name in names) > _MAX_BYTES:
        return []
    # Notes of CPUs and of the kernel; program headers and a line about each region.
    offset = (64 << 10) + len(names) * 512
    places = []
    for name in names:
        size = sizes[name]
        # As in other core images: whole pages can be mapped.
        offset += -offset % ((size | _PAGE) & -(size | _PAGE))
        places.append(_Place(os.path.join(folder, name), offset, size))
        offset += size
    return places


def _copy_and_exit(
    places: Sequence[_Place], output: BinaryIO, answers: int
) -> NoReturn:
    status = 1
    try:
        buffer = memoryview(bytearray(_CHUNK))
        with open_again(output) as file:
            for place, fd in _open_ahead(places):
                crc32 = _copy(place, fd, file, buffer)
                file.flush()
                answer = bytes([crc32 is not None]) + (crc32 or 0).to_bytes(4, "little")
                os.write(answers, answer)
        status = 0
    finally:
        # Also after errors: nothing of the first process must be ended here.
        os._exit(status)


def _open_ahead(places: Iterable[_Place]) -> Iterator[tuple[_Place, int]]:
    """Open files, and have the disk read more of them than the one that is copied."""
    waiting: deque[tuple[_Place, int]] = deque()
    for place in places:
        # O_NONBLOCK: opening a FIFO must not wait for its writer.
        fd = os.open(place.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        os.posix_fadvise(fd, 0, _CHUNK, os.POSIX_FADV_WILLNEED)
        waiting.append((place, fd))
        if len(waiting) > _AHEAD:
            yield waiting.popleft()
    yield from waiting


def _copy(place: _Place, fd: int, output: BinaryIO, buffer: memoryview) -> int | None:
    """
    Copy a file, and close it.

    :return: Its checksum, or ``None`` if it is a header, which describes memory and
        mostly is none.
    :raises OSError: If it cannot be read, or its size has changed.
    """
    with open(fd, "rb", buffering=0) as file:
        output.seek(place.offset)
        copied = crc32 = 0
        while count := file.readinto(buffer):
            data = buffer[:count]
            if not copied and data[:4] == _HEADER:
                return None
            crc32 = zlib.crc32(data, crc32)
            output.write(data)
            copied += count
            if copied > place.size:
                break
    if copied != place.size:
        raise OSError(f"{place.path}: has {copied} bytes, and had {place.size}")
    return crc32
