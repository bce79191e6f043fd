# SPDX-License-Identifier: GPL-2.0-or-later
"""The process at the other end of a Unix socket."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

__all__ = ["Peer", "peer_of"]

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
