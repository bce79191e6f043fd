# SPDX-License-Identifier: GPL-2.0-or-later
"""The process at the other end of a Unix socket."""

from __future__ import annotations

import re
import socket
import struct
from typing import NamedTuple

__all__ = ["Peer", "peer_of", "user_of"]

_UCRED = struct.Struct("3i")  # struct ucred, include/linux/socket.h


class Peer(NamedTuple):
    """Who listens or has connected."""

    pid: int
    """0 if it is in another PID namespace."""
    uid: int
    gid: int


def peer_of(connection: socket.socket) -> Peer:
    """
    Return the process at the other end.

    :raises OSError: If the socket is not connected.
    """
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return Peer(*_UCRED.unpack(found))


def user_of(pid: int) -> int | None:
    """
    Return the user id with which a process, or a thread, runs.

    Not the owner of its folder in /proc: that is root if the process has changed its
    user.

    :return: None if there is no such process, or if its user ids differ.
    """
    try:
        with open(f"/proc/{pid}/status", "rb") as status:
            match = re.search(rb"^Uid:\s+(\d+)\s+(\d+)\s+(\d+)\s", status.read(), re.M)
    except OSError:
        return None
    if match is None or len(set(match.groups())) != 1:
        return None
    return int(match[1])
