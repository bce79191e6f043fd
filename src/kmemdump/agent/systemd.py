# SPDX-License-Identifier: GPL-2.0-or-later
"""Notify systemd: sd_notify(3)."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress

from kmemdump.text import printable

__all__ = ["notify", "watchdog_interval"]

_USUAL = 10.0
"""Seconds between two signs of life where the service manager wants none."""


def notify(environ: Mapping[str, str], **state: str) -> None:
    """
    Notify the service manager; nothing happens without one.

    :param state: Such as ``READY="1"`` or ``STATUS="…"``.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # Linux's abstract sockets.
        address = "\0" + address[1:]
    text = "\n".join(
        f"{key}={printable(' '.join(value.split()))}" for key, value in state.items()
    )
    # It may be gone; marking goes on.
    with (
        suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as it,
    ):
        it.connect(address)
        it.sendall(text.encode())


def watchdog_interval(environ: Mapping[str, str]) -> float:
    """
    Return the seconds between two ``WATCHDOG=1``: a third of what the unit allows.

    See sd_watchdog_enabled(3).
    """
    given = environ.get("WATCHDOG_USEC", "")
    return int(given) / 3e6 if given.isdecimal() and int(given) else _USUAL
