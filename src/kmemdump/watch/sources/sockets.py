# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs by their QMP sockets: named ones, a folder of them, or a pattern."""

from __future__ import annotations

import glob
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from kmemdump.targets.qmp import QmpTarget
from kmemdump.targets.qmp_client import socket_address
from kmemdump.text import printable
from kmemdump.watch.sources.names import Names, SocketPattern, is_pattern, name_vms

__all__ = ["SocketSource", "SocketVm", "life_of_socket"]

_MAX_FILES = 4096
"""Files that one pattern may find."""
_NOT_THERE = ""
"""The life of a VM whose socket does not exist."""


@dataclass(frozen=True, slots=True)
class SocketVm:
    """A VM, reached through its QMP socket."""

    name: str
    path: Path
    """Absolute."""
    life: str

    @property
    def spec(self) -> str:
        return f"qmp:{self.path}"

    def with_name(self, name: str) -> SocketVm:
        return replace(self, name=name)

    def obstacle(self) -> str | None:
        """
        Return why no QEMU can be reached there.

        Connects, and disconnects at once: QEMU then serves the next client.
        """
        path = printable(str(self.path))
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                with socket_address(self.path) as address:
                    probe.connect(address)
            except BlockingIOError:
                return f"{path}: another client is connected, and others wait"
            except OSError as error:
                if self.path.is_file():
                    return f"{path}: is a file, expected a QMP socket"
                reason = f"{path}: cannot connect: {error.strerror}"
                if isinstance(error, ConnectionRefusedError):
                    reason += ", no QEMU listens there"
                return reason
        return None

    def connect(self, timeout: float) -> QmpTarget:
        return QmpTarget(self.path, timeout)


class SocketSource:
    """
    Finds VMs by their QMP sockets.

    :param specs: Paths of sockets, of folders of QMP sockets (those that there are now,
        or whose path ends with a slash), or patterns with ``*``, ``?`` and ``[…]``. A
        VM whose socket is named is always there, whether the socket is or not.
    :raises UsageError: If a socket is named twice.
    """

    def __init__(self, specs: Sequence[str]) -> None:
        plain = [spec.removeprefix("qmp:") for spec in specs]
        self._patterns = [_pattern(text) for text in plain if _names_many(text)]
        self._named = name_vms([text for text in plain if not _names_many(text)])
        self._names = Names()
        for name, path in self._named.items():
            self._names.keep(path, name)
        self._messages: list[str] = []
        self._overflowing: set[SocketPattern] = set()

    def vms(self) -> list[SocketVm]:
        found = {
            path: SocketVm(name, path, life_of_socket(path) or _NOT_THERE)
            for name, path in self._named.items()
        }
        # A socket may have several paths: of links, mounts, and /proc/PID/root.
        lives = {vm.life for vm in found.values()}
        for pattern in self._patterns:
            for path in self._matches(pattern):
                life = None if path in found else life_of_socket(path)
                if life is not None and life not in lives:
                    lives.add(life)
                    found[path] = SocketVm(self._name(path, pattern), path, life)
        return list(found.values())

    def _name(self, path: Path, pattern: SocketPattern) -> str:
        return self._names.name(path, lambda: pattern.names(path))

    def _matches(self, pattern: SocketPattern) -> Iterator[Path]:
        # Sorted, so that names do not depend on the order in a folder.
        matches = sorted(islice(_glob(pattern), _MAX_FILES + 1))
        if len(matches) > _MAX_FILES and pattern not in self._overflowing:
            self._overflowing.add(pattern)
            self._messages.append(
                f"{printable(pattern.text)}: more than {_MAX_FILES} files, the others "
                "are not watched"
            )
        return map(Path, matches[:_MAX_FILES])

    @property
    def settled(self) -> bool:
        return True

    def messages(self) -> list[str]:
        messages, self._messages = self._messages, []
        return messages

    def close(self) -> None:
        pass


def _names_many(text: str) -> bool:
    return is_pattern(text) or _is_folder(text)


def _is_folder(text: str) -> bool:
    return text.endswith("/") or os.path.isdir(text)


def _pattern(text: str) -> SocketPattern:
    path = Path(text).absolute()
    if _is_folder(text):  # Its own name may have such characters.
        return SocketPattern(f"{glob.escape(str(path))}/*", (len(path.parts),))
    places = [place for place, part in enumerate(path.parts) if is_pattern(part)]
    return SocketPattern(str(path), tuple(places))


def _glob(pattern: SocketPattern) -> Iterator[str]:
    with suppress(OSError):
        yield from glob.iglob(pattern.text)


def life_of_socket(path: str | Path) -> str | None:
    """
    Return what is another for each socket that is bound to a path.

    :return: None if there is no socket.
    """
    try:
        status = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISSOCK(status.st_mode):
        return None
    # A file system may use the number of a removed file again. Binding a socket sets
    # the time of its contents, which chmod and chown leave alone.
    return f"{status.st_dev:x}-{status.st_ino:x}-{status.st_mtime_ns:x}"
