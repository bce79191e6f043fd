# SPDX-License-Identifier: GPL-2.0-or-later
"""Download a device in ramdump mode, by the name that a user gives it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from kmemdump.collect.sahara import SocketConnection, check_empty, download
from kmemdump.collect.usb import UsbConnection
from kmemdump.errors import KmemdumpError, UsageError
from kmemdump.formats.sahara import DeviceRow

__all__ = ["is_device", "read_device"]


def is_device(spec: str) -> bool:
    """Return whether a source is a device, which has to be downloaded first."""
    kind, colon, _ = spec.partition(":")
    return kind == "usb" or (kind == "sahara" and bool(colon))


def read_device(
    spec: str,
    folder: Path,
    *,
    only: tuple[str, ...] = (),
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> tuple[str, ...]:
    """
    Download a device's regions into a folder, and let it restart.

    :param spec: ``usb``, ``usb:SERIAL``, or ``sahara:SOCKET``.
    :param folder: Created if it does not exist; must be empty.
    :param only: Shell patterns of file names; all files by default.
    :param progress: Called with a file's name, and how many of its bytes have arrived.
    :return: Messages for the user, one line each.
    :raises KmemdumpError: If nothing could be downloaded.
    """

    def wanted(rows: Sequence[DeviceRow]) -> list[DeviceRow]:
        globs = only or ("*",)
        return [
            row for row in rows if any(fnmatchcase(row.file_name, it) for it in globs)
        ]

    check_empty(folder)
    try:
        with _connect(spec) as connection:
            downloaded = download(
                connection, folder, wanted=wanted, source=spec, progress=progress
            )
    except KmemdumpError as error:
        # A device gives its memory only once, so even a part of it is used.
        if not _has_files(folder):
            raise
        reason = "; ".join(str(error).splitlines())
        return (f"{reason}; what it gave before is used",)
    return downloaded.problems


def _connect(spec: str) -> SocketConnection | UsbConnection:
    kind, _, rest = spec.partition(":")
    if kind == "usb":
        return UsbConnection(rest or None)
    if not rest:
        raise UsageError(f"{spec!r}: expected sahara:SOCKET")
    return SocketConnection(Path(rest))


def _has_files(folder: Path) -> bool:
    with suppress(OSError):
        return any(it.name.lower().endswith(".bin") for it in folder.iterdir())
    return False
