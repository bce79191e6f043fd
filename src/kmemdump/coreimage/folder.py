# SPDX-License-Identifier: GPL-2.0-or-later
"""
A folder of core images, kept within limits.

Several processes may write into it. Nothing is remembered: what is there, and what each
core image says of itself, is read again. Only core images of deaths are counted and
deleted; what a person captured, and files of others, stay.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from kmemdump.coreimage.manifest import MAX_BYTES
from kmemdump.coreimage.retention import (
    Limits,
    StoredCore,
    choose_for_room,
    choose_surplus,
)
from kmemdump.errors import FormatError, KmemdumpError
from kmemdump.files import PartialFile, is_own, remove_partial_files
from kmemdump.formats.notes import NoteType, read_own
from kmemdump.formats.sealed import CLEAR_LIMIT, ClearLine, find_sealed
from kmemdump.sealing.folder_key import FolderKey
from kmemdump.text import format_size

__all__ = ["SUFFIX", "CoreFolder", "StoredDeath"]

SUFFIX = ".core"
"""End of the names of core images that are counted and deleted."""
_LOCK = ".kmemdump.lock"
_FILES = 5
"""Files that are there at once for a new core image."""
_RESERVED = ".reserved"
_LOCK_PATIENCE = 2.0
"""Seconds. Whoever holds the lock that long does what was to be done."""
_PARTIAL_RESERVED = re.compile(r"\.\d+\.reserved\.partial-[0-9a-f]{8}")
_MAX_TEXT = 4096
"""Longest text in the facts about a death, in characters."""


class StoredDeath(NamedTuple):
    """
    A core image in the folder, and the death that it is of.

    Where the folder has a key, its tags stand for machine, cause and id.
    """

    core: StoredCore
    id: str
    """``death_id`` in its manifest."""


class _Identity(NamedTuple):
    """Shows that a file is the one that was read."""

    device: int
    inode: int
    size: int
    changed: int
    """Nanoseconds since the epoch."""

    @classmethod
    def of(cls, status: os.stat_result) -> _Identity:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class CoreFolder:
    """
    A folder of core images.

    :param path: The folder; it may vanish and come back.
    :param limits: How much room they may take.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self._limits = limits
        self._known: dict[str, tuple[_Identity, StoredDeath | None]] = {}
        """What was read before, by name."""
        self._key = FolderKey(path)
        self.tag = self._key.tag
        """Returns what stands for a text where everybody can read it."""
        self.tags = self._key.tags
        """Returns what the clear line of a sealed core image says of a death."""

    def make_key(self) -> None:
        """
        Make the key that tags of sealed core images need, unless the folder has one.

        If that is impossible now, tags hide their texts nevertheless.
        """
        self._key.hide()
        if self._key.known:
            return
        with suppress(OSError), self._opened() as fd, self._locked(fd) as locked:
            if locked:
                self._key.make()

    def remove_partial_files(self) -> int:
        """Remove what writers that died have left; return the number of files."""
        try:
            return remove_partial_files(self.path)
        except OSError:
            return 0  # Writing into the folder will say why.

    @contextmanager
    def reserve(self, size: int, beside: int = 0) -> Iterator[str | None]:
        """
        Reserve room for a core image, for the body of a ``with`` statement.

        What may go for it is deleted.

        :param size: Most bytes of it.
        :param beside: Bytes that other files need meanwhile.
        :return: Why there is no room.
        """
        reservation = None
        try:
            with self._opened() as fd, self._locked(fd) as locked:
                reserved = self._reserved(fd)
                problem = self._make_room(fd, size + beside + reserved, locked)
                if problem is None and locked:
                    self._delete_surplus(fd, arriving=size + reserved)
                if problem is None:
                    reservation = self._reservation(size)
        except OSError as error:
            problem = f"{self.path}: {error.strerror}"
        try:
            yield problem
        finally:
            if reservation is not None:
                reservation.discard()

    def trim(self, fresh: Collection[str] = ()) -> list[str]:
        """
        Delete what is beyond the limits; return the names of the deleted files.

        :param fresh: Names of files that stay in any case.
        """
        with suppress(OSError), self._opened() as fd:
            if not self._may_exceed(fd):
                return []
            with self._locked(fd) as locked:
                if locked:
                    return self._delete_surplus(fd, fresh)
        return []

    def find_death(self, machine: str, id: str) -> Path | None:
        """Return the core image of a death of a machine, if there is one."""
        wanted = self._key.tag(machine), self._key.tag(id)
        with suppress(OSError), self._opened() as fd:
            for item in self._stored(fd, f"{machine}-") if id else ():
                if (item.core.machine, item.id) == wanted:
                    return self.path / item.core.name
        return None

    def _reserved(self, fd: int) -> int:
        """Return how many bytes others have reserved, who still live."""
        self.remove_partial_files()
        with os.scandir(fd) as entries:
            names = [
                entry.name
                for entry in entries
                if _PARTIAL_RESERVED.fullmatch(entry.name)
            ]
        size = 0
        for name in names:
            with suppress(OSError):
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                size += status.st_size if is_own(status) else 0
        return size

    def _reservation(self, size: int) -> PartialFile | None:
        """Make a file without contents, which goes if this process dies."""
        try:
            file = PartialFile(self.path / f"{os.getpid()}{_RESERVED}")
        except KmemdumpError:
            return None  # Writing the core image will say why.
        try:
            file.output.truncate(size)
        except (KmemdumpError, OSError):
            file.discard()
            return None
        return file

    def _make_room(self, fd: int, need: int, may_delete: bool) -> str | None:
        """Free some bytes on the file system; return why there is no room."""
        while (lacking := self._lacking(fd, need)) > 0 and may_delete:
            cores = [item.core for item in self._stored(fd)]
            if not self._delete(fd, choose_for_room(cores, lacking)):
                break
        if lacking <= 0:
            return None
        status = os.fstatvfs(fd)
        if _lacks_files(status):
            return f"the file system of {self.path} can hold no more files"
        free = format_size(status.f_bavail * status.f_frsize)
        kept = format_size(self._limits.free(status.f_blocks * status.f_frsize))
        return (
            f"the file system of {self.path} has {free} free: a core image needs "
            f"{format_size(need)}, and {kept} are kept free"
        )

    def _lacking(self, fd: int, need: int) -> int:
        """Return how many bytes lack on the file system; 1 if only inodes do."""
        status = os.fstatvfs(fd)
        kept = self._limits.free(status.f_blocks * status.f_frsize)
        lacking = need + kept - status.f_bavail * status.f_frsize
        return max(lacking, 1) if _lacks_files(status) else lacking

    def _delete_surplus(
        self, fd: int, fresh: Collection[str] = (), arriving: int = 0
    ) -> list[str]:
        if not self._may_exceed(fd, arriving):
            return []
        cores = [item.core for item in self._stored(fd)]
        limits = self._limits
        limits = limits._replace(max_bytes=max(limits.max_bytes - arriving, 0))
        return self._delete(fd, choose_surplus(cores, limits, fresh))

    def _may_exceed(self, fd: int, arriving: int = 0) -> bool:
        """Return whether it is worth reading what the core images say."""
        size = arriving
        count: Counter[str] = Counter()
        for name, status in _list(fd):
            size += status.st_size
            count[name.rpartition("-")[0]] += 1  # NAME-TIME.core
        return size > self._limits.max_bytes or any(
            number > self._limits.keep for number in count.values()
        )

    def _stored(self, fd: int, start: str = "") -> list[StoredDeath]:
        """Return the core images of deaths whose names have a start."""
        known: dict[str, tuple[_Identity, StoredDeath | None]] = {}
        for name, status in _list(fd):
            if name.startswith(start):
                identity = _Identity.of(status)
                before = self._known.get(name)
                if before is None or before[0] != identity:
                    before = identity, _read_death(fd, name, self._key)
                known[name] = before
        if not start:
            self._known.clear()  # Forget what is gone.
        self._known.update(known)
        return [item for _, item in known.values() if item is not None]

    def _delete(self, fd: int, cores: Iterable[StoredCore]) -> list[str]:
        deleted = []
        for core in cores:
            identity, _ = self._known[core.name]
            with suppress(OSError):
                status = os.stat(core.name, dir_fd=fd, follow_symlinks=False)
                if _Identity.of(status) == identity:
                    os.unlink(core.name, dir_fd=fd)
                    deleted.append(core.name)
        return deleted

    @contextmanager
    def _opened(self) -> Iterator[int]:
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _locked(self, folder: int) -> Iterator[bool]:
        """
        Lock the folder against others that delete.

        Two that choose at the same time might each delete what the other one counts
        on. If there can be no lock, that risk is taken.

        :return: Whether to go on: not if another one has been at it for long.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(_LOCK, flags, 0o600, dir_fd=folder)
        except OSError:  # A full disk, or no file of ours.
            yield True
            return
        try:
            yield not is_own(os.fstat(fd)) or _lock(fd)
        finally:
            os.close(fd)


def _lacks_files(status: os.statvfs_result) -> bool:
    # Some file systems have no limit, and give 0.
    return status.f_files > 0 and status.f_favail < _FILES


def _lock(fd: int) -> bool:
    """Return whether the file could be locked in time, or need not be."""
    deadline = time.monotonic() + _LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        except OSError:  # A file system without locks.
            return True
        else:
            return True


def _list(folder: int) -> Iterator[tuple[str, os.stat_result]]:
    """Yield what may be core images of ours: no links, no files of others."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(SUFFIX) and not entry.name.startswith("."):
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if is_own(status):
                        yield entry.name, status


def _read_death(folder: int, name: str, key: FolderKey) -> StoredDeath | None:
    """Return what a core image says of the death; ``None`` if it is of none."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=folder)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        sealed = find_sealed(os.pread(fd, CLEAR_LIMIT, 0), name)
        if sealed is not None:
            return _sealed_death(sealed.clear, name, status, key)
        desc = read_own(
            lambda offset, count: os.pread(fd, count, offset),
            status.st_size,
            name,
            NoteType.MANIFEST,
            MAX_BYTES,
        )
        if desc is None or not is_own(status):
            return None
        return _parse_death(_read_start(desc), name, status, key)
    except (FormatError, OSError, OverflowError, ValueError, RecursionError):
        return None  # Not ours, or damaged: it stays.
    finally:
        os.close(fd)


def _read_start(manifest: bytes) -> object:
    """
    Parse a manifest without its long lists, which come last.

    They take a hundred times as long, and there are hundreds of core images.
    """
    # In a string, a quote would stand behind a backslash.
    start, found, _ = manifest.partition(b',"areas":')
    return json.loads(start + b"}" if found else manifest)


def _sealed_death(
    clear: ClearLine | None, name: str, status: os.stat_result, key: FolderKey
) -> StoredDeath | None:
    """Return the facts about a death in a clear line; ``None`` if there are none."""
    if clear is None or clear.tags is None or not clear.tags.machine:
        return None
    if not (key.known and is_own(status)):
        return None  # Another folder's: nothing can be told from its tags.
    machine, cause, id = clear.tags
    time = clear.time.timestamp()
    return StoredDeath(StoredCore(time, name, status.st_size, machine, cause), id)


def _parse_death(
    manifest: object, name: str, status: os.stat_result, key: FolderKey
) -> StoredDeath | None:
    """Return the facts about a death in a manifest; ``None`` if there are none."""
    if not isinstance(manifest, dict):
        return None
    texts = [manifest.get(field) for field in ("vm", "signature", "death_id")]
    for text in texts:
        if not isinstance(text, str) or len(text) > _MAX_TEXT:
            return None
    machine, signature, id = map(key.tag, map(str, texts))
    if not machine:
        return None
    copied = datetime.fromisoformat(str(manifest.get("time"))).timestamp()
    core = StoredCore(copied, name, status.st_size, machine, signature)
    return StoredDeath(core, id)
