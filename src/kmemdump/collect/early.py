# SPDX-License-Identifier: GPL-2.0-or-later
"""
Copying a folder's files into a core image before it is known what they are.

To load what finds that out takes Python as long as the disk takes for the files. So a
second process copies them meanwhile, each to a place of its own, and the headers, which
tell what is where, are written last. Nothing is loaded here that can come later.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn

from kmemdump.collect.names import MAX_FILES, is_device, is_piece, list_files
from kmemdump.errors import KmemdumpError
from kmemdump.files import atomic_output, open_again
from kmemdump.progress import tell_progress

__all__ = ["Copied", "EarlyCopy", "collecting"]

logger = logging.getLogger(__name__)

_MAX_BYTES = 1 << 30
"""Of more than this, the start of Python is no part that counts."""
_CHUNK = 1 << 20
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
    The files of a folder on their way into a core image.

    :param output: Nothing else may be written to it before :meth:`wait` has returned.
    """

    def __init__(self, output: BinaryIO, places: Sequence[_Place]) -> None:
        self.output = output
        self._places = places
        self._pid = 0
        self._answers = -1
        # A copy of a process with threads has the locks that others of them held.
        if places and threading.active_count() == 1:
            self._start()

    def wait(self) -> dict[Path, Copied]:
        """
        Wait until all is copied.

        :return: What is; nothing if anything went wrong, which then the one who
            copies everything again meets, too, and tells.
        """
        if not self._pid:
            return {}
        answers = b""
        # Not until the process ends: it may still wait for the disk.
        while len(answers) < len(self._places) * _ANSWER:
            more = os.read(self._answers, 1 << 16)
            if not more:
                logger.info("copying files early went wrong")
                return {}
            answers += more
            done = len(answers) // _ANSWER
            tell_progress("copying memory", done, len(self._places))
        copied = {}
        for i, place in enumerate(self._places):
            answer = answers[i * _ANSWER : (i + 1) * _ANSWER]
            if answer[0]:
                crc32 = int.from_bytes(answer[1:], "little")
                copied[Path(place.path)] = Copied(place.offset, place.size, crc32)
        return copied

    def stop(self) -> None:
        """Stop copying, if that still goes on."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            os.close(self._answers)
            self._pid = 0

    def _start(self) -> None:
        try:
            self._answers, writer = os.pipe()
        except OSError as error:
            logger.info("no early copy: %s", error.strerror)
            return
        try:
            self._pid = os.fork()
        except OSError as error:
            logger.info("no early copy: %s", error.strerror)
            os.close(self._answers)
        else:
            if not self._pid:
                os.close(self._answers)
                _copy_and_exit(self._places, self.output, writer)
        os.close(writer)


@contextmanager
def collecting(source: str, path: str | os.PathLike[str]) -> Iterator[EarlyCopy]:
    """
    Open a core image, and begin to copy into it if *source* is a folder.

    :raises KmemdumpError: As :func:`~kmemdump.files.atomic_output` does.
    """
    with atomic_output(path) as output:
        copy = EarlyCopy(output, () if is_device(source) else _places(Path(source)))
        try:
            yield copy
        finally:
            copy.stop()


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
            for place in places:
                crc32 = _copy(place, file, buffer)
                file.flush()
                answer = bytes([crc32 is not None]) + (crc32 or 0).to_bytes(4, "little")
                os.write(answers, answer)
        status = 0
    finally:
        # Also after errors: nothing of the first process must be ended here.
        os._exit(status)


def _copy(place: _Place, output: BinaryIO, buffer: memoryview) -> int | None:
    """
    Copy a file.

    :return: Its checksum, or ``None`` if it is a header, which describes memory and
        mostly is none.
    :raises OSError: If it cannot be read, or its size has changed.
    """
    # O_NONBLOCK: opening a FIFO must not wait for its writer.
    fd = os.open(place.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
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
