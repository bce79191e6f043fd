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

from kmemdump.errors import KmemdumpError
from kmemdump.files import PartialFile, open_again
from kmemdump.firmware_dumps.names import MAX_FILES, is_device, is_piece, list_files

TYPE_CHECKING = False  # As typing has it, for which not everybody can wait.
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import BinaryIO, NoReturn

__all__ = ["EarlyCopy"]

_MIN_BYTES = 64 << 10
"""Smaller files take no time, and many of them describe memory and are none."""
_MAX_BYTES = 1 << 30
"""Of more than this, the start of Python is no part that counts."""
_CHUNK = 1 << 20
_PAGE = 4096
_AHEAD = 16
"""Files that the disk may read at once."""


class EarlyCopy:
    """
    A core image into which the files of a folder are being copied.

    At the end of a ``with`` statement's body it is given its name, or, if that raises,
    removed.

    :param source: As for :func:`~kmemdump.collect.source.open_source`; of what is no
        folder,
        nothing is copied.
    :raises KmemdumpError: If *path* cannot be written.
    """

    def __init__(self, source: str, path: str | os.PathLike[str]) -> None:
        self.source = source
        self.path = os.fspath(path)
        self._file = PartialFile(path)
        self._pid = 0
        self._answers = -1
        self.places = {} if is_device(source) else _places(source)
        """By the name of a file: offset and size of its place in bytes."""
        # A copy of a process with threads has the locks that others of them held.
        if threading.active_count() > 1 or not self._start():
            self.places = {}

    @property
    def output(self) -> BinaryIO:
        """Nothing else may be written to it before :meth:`wait` has returned."""
        return self._file.output

    def wait(self) -> dict[str, int] | None:
        """
        Wait until all is copied.

        :return: CRC-32 of each file, by its name. ``None`` if anything went wrong: who
            copies everything again meets it, too, and tells.
        """
        answers = b""
        # Not until the process ends: it may still wait for the disk.
        while len(answers) < 4 * len(self.places):
            more = os.read(self._answers, 1 << 16)
            if not more:
                return None
            answers += more
        return {
            name: int.from_bytes(answers[4 * i : 4 * i + 4], "little")
            for i, name in enumerate(self.places)
        }

    def stop(self) -> None:
        """Copy no more."""
        if self._pid:
            import signal

            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            os.close(self._answers)
            self._pid = 0

    def discard(self) -> None:
        """Remove it, if it has no name yet."""
        self.stop()
        self._file.discard()

    def __enter__(self) -> EarlyCopy:
        return self

    def __exit__(self, problem: type[BaseException] | None, *_: object) -> None:
        if problem is None:
            self.stop()
            self._file.commit()
        else:
            self.discard()

    def _start(self) -> bool:
        if not self.places:
            return False
        try:
            self._answers, writer = os.pipe()
        except OSError:
            return False
        try:
            self._pid = os.fork()
        except OSError:
            os.close(self._answers)
            os.close(writer)
            return False
        if not self._pid:
            os.close(self._answers)
            _copy_and_exit(self.source, self.places, self.output, writer)
        os.close(writer)
        return True


def _places(folder: str) -> dict[str, tuple[int, int]]:
    """Give each file a place after what headers and notes may need."""
    try:
        found = list_files(folder)
    except (KmemdumpError, ValueError):
        return {}  # No folder; others say what is wrong with it.
    sizes = {name: size for name, size in sorted(found.items()) if is_piece(name)}
    if len(sizes) > MAX_FILES or sum(sizes.values()) > _MAX_BYTES:
        return {}
    # Notes of CPUs and of the kernel; program headers and a line about each region.
    offset = (64 << 10) + len(sizes) * 512
    places = {}
    for name, size in sizes.items():
        if size >= _MIN_BYTES:
            # As in other core images: whole pages can be mapped.
            offset += -offset % ((size | _PAGE) & -(size | _PAGE))
            places[name] = offset, size
            offset += size
    return places


def _copy_and_exit(
    folder: str,
    places: Mapping[str, tuple[int, int]],
    output: BinaryIO,
    answers: int,
) -> NoReturn:
    status = 1
    try:
        buffer = memoryview(bytearray(_CHUNK))
        files = _open_ahead(os.path.join(folder, name) for name in places)
        with open_again(output) as copy:
            for fd, (offset, size) in zip(files, places.values(), strict=True):
                copy.seek(offset)
                crc32 = _copy(fd, size, copy, buffer)
                copy.flush()
                os.write(answers, crc32.to_bytes(4, "little"))
        status = 0
    finally:
        # Also after errors: nothing of the first process must be ended here.
        os._exit(status)


def _open_ahead(paths: Iterable[str]) -> Iterator[int]:
    """Open files, and have the disk read more of them than the one that is copied."""
    waiting = []
    for path in paths:
        # O_NONBLOCK: opening a FIFO must not wait for its writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        os.posix_fadvise(fd, 0, _CHUNK, os.POSIX_FADV_WILLNEED)
        waiting.append(fd)
        if len(waiting) > _AHEAD:
            yield waiting.pop(0)
    yield from waiting


def _copy(fd: int, size: int, output: BinaryIO, buffer: memoryview) -> int:
    """
    Copy a file, and close it.

    :return: Its CRC-32.
    :raises OSError: If it cannot be read, or is not as long as it was.
    """
    import zlib

    with open(fd, "rb", buffering=0) as file:
        crc32 = copied = 0
        while copied <= size and (count := file.readinto(buffer)):
            crc32 = zlib.crc32(buffer[:count], crc32)
            output.write(buffer[:count])
            copied += count
    if copied != size:
        raise OSError(f"{copied} bytes, expected {size}")
    return crc32
