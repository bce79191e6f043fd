# SPDX-License-Identifier: GPL-2.0-or-later
"""
The process of a libvirt domain's QEMU, as this process sees it.

libvirt and QEMU may run in a container, whose process IDs are others than here.
"""

from __future__ import annotations

import os
import re
import select
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from kmemdump.proc.process_stat import read_stat
from kmemdump.targets import Closing
from kmemdump.targets.peer import peer_of
from kmemdump.targets.qmp_client import socket_address

__all__ = ["ProcessEnd", "daemon_of", "find_process", "start_time"]

_MAX_PROCESSES = 1 << 20
_PID_FILES = (
    # Of the system's daemon, and of a user's (libvirt src/qemu/qemu_conf.c). Containers
    # of KubeVirt run the latter as a user of their own.
    "run/libvirt/qemu/{name}.pid",
    "run/user/{uid}/libvirt/qemu/run/{name}.pid",
)


def daemon_of(uri: str) -> int:
    """
    Return the PID of the daemon whose socket a URI names.

    :return: 0 if the URI names no socket, or the daemon is not visible.
    """
    paths = parse_qs(urlsplit(uri).query).get("socket", [])
    if not paths:
        return 0
    with (
        suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection,
        socket_address(Path(paths[0])) as address,
    ):
        connection.settimeout(1.0)
        connection.connect(address)
        return peer_of(connection).pid
    return 0


def find_process(name: str, daemon: int) -> int:
    """
    Return the PID of a domain's QEMU, out of the file that libvirt keeps it in.

    :param name: The domain's.
    :param daemon: PID of libvirt's daemon; 0 if it is not known.
    :return: 0 if there is no such file that can be read.
    """
    root = Path(f"/proc/{daemon}/root" if daemon else "/")
    uid = _uid(daemon) if daemon else os.getuid()
    for pattern in _PID_FILES:
        if "/" in name or not name:
            break
        with suppress(OSError, ValueError):
            with open(root / pattern.format(name=name, uid=uid), "rb") as file:
                pid = int(file.read(32))
            if daemon:
                pid = _seen_from_here(pid, daemon)
            if pid > 0:
                return pid
    return 0


def _uid(pid: int) -> int:
    with suppress(OSError):
        return os.stat(f"/proc/{pid}").st_uid
    return -1


def _seen_from_here(pid: int, neighbour: int) -> int:
    """Translate a PID out of the PID namespace of a neighbour; 0 if it is not there."""
    namespace = _namespace(neighbour)
    if namespace == _namespace(os.getpid()):
        return pid
    for candidate in _processes():
        if _namespace(candidate) == namespace and _inner_pid(candidate) == pid:
            return candidate
    return 0


def _processes() -> Iterator[int]:
    with os.scandir("/proc") as entries:
        for entry, _ in zip(entries, range(_MAX_PROCESSES), strict=False):
            if entry.name.isdecimal():
                yield int(entry.name)


def _namespace(pid: int) -> str:
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/pid")
    return ""


def _inner_pid(pid: int) -> int:
    """Return a process's PID in its own, innermost namespace; 0 if it ended."""
    with suppress(OSError), open(f"/proc/{pid}/status", "rb") as status:
        match = re.search(rb"^NSpid:.*\s(\d+)$", status.read(1 << 16), re.M)
        return int(match[1]) if match else 0
    return 0


def start_time(pid: int) -> int:
    """Return when a process started, in ticks since the boot; 0 if it ended."""
    found = read_stat(f"/proc/{pid}/stat")
    return 0 if found is None else found.started


class ProcessEnd(Closing):
    """
    Notices the end of a process.

    :param pid: 0 for a process that is not known, of which no end is noticed.
    """

    def __init__(self, pid: int) -> None:
        self._fd = -1
        if pid > 0:
            with suppress(OSError):
                self._fd = os.pidfd_open(pid)

    @property
    def ended(self) -> bool:
        if self._fd < 0:
            return False
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
