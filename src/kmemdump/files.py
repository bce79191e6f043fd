# SPDX-License-Identifier: GPL-2.0-or-later
"""Files to read, and files that get their name once they are whole."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import pwd
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, BinaryIO

from kmemdump.errors import KmemdumpError, OutputError, TargetError
from kmemdump.folders import open_folder_of

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = [
    "OpenFile",
    "PartialFile",
    "is_own",
    "read_own_file",
    "remove_partial_files",
]


class OpenFile:
    """
    A file that is open for reading.

    :raises TargetError: If it cannot be opened, is not a file, or is empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        try:
            # O_NONBLOCK: opening a FIFO must not wait for its writer.
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            if error.errno == errno.ENXIO:
                raise TargetError(
                    f"{path}: is a socket, expected a RAM image or a dump of a kernel\n"
                    f"if it is QEMU's, say qmp:{path}"
                ) from error
            raise TargetError(f"{path}: {error.strerror}{_whose(path)}") from error
        except ValueError as error:  # A zero byte in the path.
            raise TargetError(f"{path!r}: {error}") from error
        try:
            status = os.fstat(self.fd)
            self.size = status.st_size
            if stat.S_ISBLK(status.st_mode):
                self.size = os.lseek(self.fd, 0, os.SEEK_END)
        except OSError as error:
            os.close(self.fd)
            raise TargetError(f"{path}: {error.strerror}") from error
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "" if self.size else "empty")
        if kind:
            os.close(self.fd)
            raise TargetError(
                f"{path}: is {kind}, expected a RAM image or a dump of a kernel"
            )

    def read(self, offset: int, count: int) -> bytes:
        """
        Read; returns less at the end of the file.

        :raises TargetError: If the device or file system fails.
        """
        try:
            return os.pread(self.fd, count, offset)
        except (OSError, OverflowError) as error:
            raise TargetError(f"{self.path}+{offset:#x}: {error}") from error

    def next_data(self, offset: int) -> int:
        """Return the first offset, from *offset* on, that is not in a hole."""
        try:
            return os.lseek(self.fd, offset, os.SEEK_DATA)
        except OSError as error:
            # ENXIO: only a hole is left. Others: the file system knows of no holes.
            return self.size if error.errno == errno.ENXIO else offset

    def detach(self) -> int:
        """Return the file descriptor, which belongs to the caller from here on."""
        fd, self.fd = self.fd, -1
        return fd

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _whose(path: Path) -> str:
    """Return whose file it is that others cannot read, on a line of its own."""
    try:
        status = os.stat(path)
    except OSError:
        return ""
    if os.access(path, os.R_OK):
        return ""
    try:
        owner = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        owner = f"user {status.st_uid}"
    whom = "root" if status.st_uid == 0 else f"{owner} or root"
    return f"\na core image is readable by its owner only: run this as {whom}"


_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFCHR: "a character device",
    stat.S_IFIFO: "a FIFO",
}


class PartialFile:
    """
    A file that gets its name once it is whole: when the body of a ``with`` statement
    has succeeded. If the body raises, nothing is left.

    It is written in the same folder as ``.NAME.partial-XXXXXXXX``, readable by its
    owner only, synced, and renamed; what was under the name is replaced. Links are
    followed, but for those of other users where others can write. If the
    process is killed, the partial file is left, and removed by the next one that
    writes *path*, or by :func:`remove_partial_files`.

    :raises OutputError: If *path* cannot be written, or the disk is full; the
        methods of the file raise it as well.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # A symbolic link stays, and what it points to is replaced.
        self._final = os.path.realpath(path)
        try:
            with _translated(self._final):
                self._folder, self._base = open_folder_of(path)
        except OutputError as error:
            raise _explained(error, self._final) from error
        try:
            with _translated(self._final):
                _check_place(self._folder, self._base, self._final)
                prefix = f".{self._base[:50]}.partial-"
                _remove_stale(self._folder, lambda name: name.startswith(prefix))
                fd, self._name = _create_locked(self._folder, prefix)
        except BaseException:
            os.close(self._folder)
            raise
        self._raw = _Output(fd, self._final)
        self.output: BinaryIO = io.BufferedWriter(self._raw, _BUFFER)

    def commit(self) -> None:
        """
        Give the file its name, and close it.

        :raises OutputError: If the disk is full; then no file is left.
        """
        try:
            self.output.flush()
            self._raw.sync()
            with _translated(self._final):
                # Before the file is closed: that would end the lock.
                os.replace(
                    self._name,
                    self._base,
                    src_dir_fd=self._folder,
                    dst_dir_fd=self._folder,
                )
        except BaseException:
            self.discard()
            raise
        self.output.close()
        # The file is whole and in place already, and not every file system can sync a
        # folder: callers need not know of a failure.
        with suppress(OSError):
            os.fsync(self._folder)
        self._close_folder()

    def discard(self) -> None:
        """Close and remove the file."""
        with suppress(OSError):
            os.unlink(self._name, dir_fd=self._folder)
        self._close_folder()
        with suppress(KmemdumpError, OSError):
            self.output.close()  # Writes what is left, which may fail.
        self._raw.close()

    def _close_folder(self) -> None:
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1

    def __enter__(self) -> BinaryIO:
        return self.output

    def __exit__(self, problem: type[BaseException] | None, *_: object) -> None:
        if problem is None:
            self.commit()
        else:
            self.discard()


_BUFFER = 256 << 10
"""Bytes that are written at once."""
_SYNC_BYTES = 1 << 20
"""Bytes in the first sync: most core images have a few MiB."""
_MAX_SYNC_BYTES = 64 << 20
"""Each later sync doubles, up to this: starting a thread takes as long as 1 MiB."""


class _Output(io.FileIO):
    """
    A file whose write errors name the final file.

    Its data is synced in the background, because all of it has to be on the disk in the
    end.
    """

    def __init__(self, fd: int, final: str) -> None:
        super().__init__(fd, "w")
        self._final = final
        self._waiting = 0
        self._enough = _SYNC_BYTES
        self._syncing: Thread | None = None
        self._problem: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        with _translated(self._final):
            count = super().write(data)
        self._waiting += count
        busy = self._syncing is not None and self._syncing.is_alive()
        if self._waiting >= self._enough and not busy:
            self._waiting = 0
            self._enough = min(2 * self._enough, _MAX_SYNC_BYTES)
            # In a thread: even starting to write waits if the disk's queue is full.
            syncing = Thread(target=self._sync_data, name="sync")
            with suppress(RuntimeError):  # No more threads: sync() does all of it.
                syncing.start()
                self._syncing = syncing
        return count

    def sync(self) -> None:
        """Wait until all data is on the disk."""
        self._join()
        with _translated(self._final):
            os.fsync(self.fileno())
            if self._problem is not None:
                raise self._problem

    def close(self) -> None:
        self._join()  # Another file may get its number from here on.
        super().close()

    def _sync_data(self) -> None:
        try:
            os.fdatasync(self.fileno())
        except OSError as error:
            self._problem = error  # The kernel reports each error once.

    def _join(self) -> None:
        if self._syncing is not None:
            self._syncing.join()


@contextmanager
def _translated(final: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {final}: {error.strerror}") from error


def _explained(error: OutputError, final: str) -> OutputError:
    """Return the error about a folder, which may just be missing."""
    folder = os.path.dirname(final)
    if isinstance(error.__cause__, FileNotFoundError):
        return OutputError(f"cannot write {final}: folder {folder} does not exist")
    return error


def _check_place(folder: int, name: str, final: str) -> None:
    """Raise early the errors that :func:`os.replace` would raise after all the work."""
    try:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise OutputError(f"cannot write {final}: it is a folder")
    if not stat.S_ISREG(mode):
        raise OutputError(f"cannot write {final}: it is not a regular file")


def _create_locked(folder: int, prefix: str) -> tuple[int, str]:
    """
    Create a partial file and lock it for as long as it is open.

    The lock shows that its writer lives, also to other containers and, by NFS, hosts,
    where process ids mean nothing.
    """
    while True:
        # Not tempfile, which takes longer to import than a small file to write.
        name = prefix + os.urandom(4).hex()
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            fd = os.open(name, flags, 0o600, dir_fd=folder)
        except FileExistsError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            # Before the lock, other writers may have taken the file for stale.
            if os.fstat(fd).st_nlink:
                return fd, name
        except BaseException:
            os.unlink(name, dir_fd=folder)
            os.close(fd)
            raise
        os.close(fd)


_PARTIAL = re.compile(r"\..+\.partial-[0-9a-f]{8}", re.S)


def remove_partial_files(folder: str | os.PathLike[str]) -> int:
    """
    Remove the partial files of all writers that have died; return how many they were.

    :param folder: A folder in which :class:`PartialFile` writes.
    :raises OSError: If the folder cannot be read.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _remove_stale(fd, lambda name: bool(_PARTIAL.fullmatch(name)))
    finally:
        os.close(fd)


def read_own_file(path: Path, limit: int) -> bytes | None:
    """
    Read a small file that this user has written, where others can make files, too.

    :param limit: Bytes; what follows is not read.
    :return: ``None`` if it is another user's, or no regular file.
    :raises OSError: If it cannot be read, or is a link.
    """
    # Do not wait on a FIFO.
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(fd, limit) if is_own(os.fstat(fd)) else None
    finally:
        os.close(fd)


def is_own(status: os.stat_result) -> bool:
    """Return whether a file is a regular one of this user's."""
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


def _remove_stale(folder: int, is_partial: Callable[[str], bool]) -> int:
    """Remove partial files whose writers have died; return how many they were."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if is_partial(entry.name)]
    removed = 0
    for name in names:
        with suppress(OSError):
            # Do not follow a link, or wait on a FIFO, with such a name.
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(name, flags, dir_fd=folder)
            try:
                if is_own(os.fstat(fd)):
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(name, dir_fd=folder)
                    removed += 1
            finally:
                os.close(fd)
    return removed
