# SPDX-License-Identifier: GPL-2.0-or-later
"""
Everything that a dump can be collected from, by the name that a person gives it.

What only some sources need is imported for them: a folder is collected as fast as it
can be copied, and would wait for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kmemdump.errors import KmemdumpError, TargetError, UsageError
from kmemdump.firmware_dumps.target import DumpTarget
from kmemdump.memory.physical import PAGE_SIZE
from kmemdump.memory.ranges import Range
from kmemdump.opening import open_target
from kmemdump.targets import Target
from kmemdump.targets.file import read_vmcoreinfo

if TYPE_CHECKING:
    from kmemdump.collect.sahara import Connection
    from kmemdump.firmware_dumps.assemble import FirmwareDump
    from kmemdump.formats.kinfo import Kinfo
    from kmemdump.formats.sahara import Row

__all__ = [
    "Options",
    "find_table",
    "is_device",
    "kinfo_in_file",
    "open_source",
    "read_device",
]

Progress = Callable[[str, int, int], None]


class Options(NamedTuple):
    """What a dump may not contain, and the user gives."""

    smem: Range | None = None
    """Where SMEM is, in physical memory."""
    kinfo: int | None = None
    """Physical address of a ``debug_kinfo`` in bytes."""
    vmcoreinfo: Path | None = None
    """File with the text of VMCOREINFO."""
    memory_map: str | None = None
    """Of a raw RAM image; see :func:`kmemdump.targets.image.parse_memory_map`."""


def is_device(spec: str) -> bool:
    """Return whether a source is a device, which has to be downloaded first."""
    kind, colon, _ = spec.partition(":")
    return kind == "usb" or (kind == "sahara" and bool(colon))


def read_device(
    spec: str,
    folder: Path,
    *,
    only: tuple[str, ...] = (),
    progress: Progress = lambda *_: None,
) -> tuple[str, ...]:
    """
    Download a device's regions into a folder, and let it restart.

    :param spec: ``usb``, ``usb:SERIAL``, or ``sahara:SOCKET``.
    :param folder: Made if it is not there; must be empty.
    :param only: Patterns of file names, as a shell's; all by default.
    :return: What a person should know, one line each.
    :raises KmemdumpError: If that does not work, and nothing has come.
    """

    from kmemdump.collect.sahara import download

    def wanted(rows: Sequence[Row]) -> list[Row]:
        return [row for row in rows if not only or _matches(row, only)]

    _check_new(folder)  # Else what is there would be taken for what has come.
    try:
        with _connect(spec) as connection:
            saved = download(
                connection, folder, wanted=wanted, source=spec, progress=progress
            )
    except KmemdumpError as error:
        # A device gives its memory once. What has come is better than nothing.
        if not _has_files(folder):
            raise
        reason = "; ".join(str(error).splitlines())
        return (f"{reason}; what it gave before is used",)
    return saved.problems


@contextmanager
def open_source(spec: str, options: Options) -> Iterator[DumpTarget]:
    """
    Collect what firmware left, for the body of a ``with`` statement.

    :param spec: A folder of files, an image, or a target with a table in its memory.
    :raises KmemdumpError: If there is nothing to collect.
    """
    info = options.vmcoreinfo
    _refuse_kinfo(spec)
    target = open_target(spec, vmcoreinfo=info, memory_map=options.memory_map)
    try:
        given = options.smem is not None or options.kinfo is not None
        if isinstance(target, DumpTarget) and not given:
            yield target
            return
        # The kernel was found there: what tables leave open, it tells.
        collected = _collect(target, options)._replace(machine=target.machine)
        text = read_vmcoreinfo(info) if info is not None else None
        if text is None and collected.backend == "kinfo":
            with suppress(KmemdumpError):  # The image alone does not hold it.
                text = target.vmcoreinfo()
        yield DumpTarget(collected, text)
    finally:
        target.close()


def find_table(target: Target, options: Options) -> Range | int:
    """
    Find the table that tells what firmware would dump.

    :return: Where SMEM is, or else the physical address of a kinfo in bytes.
    :raises KmemdumpError: If there is neither, or several.
    """
    from kmemdump.firmware.discovery import ReservedRanges, find_live_reserved
    from kmemdump.firmware.kinfo_search import find_kinfo
    from kmemdump.firmware.smem_search import find_smem
    from kmemdump.targets.live import LiveTarget

    if options.smem is not None:
        return options.smem
    if options.kinfo is not None:
        return options.kinfo
    if isinstance(target, LiveTarget):
        # SMEM is not in what the kernel shows of its memory.
        smem = find_live_reserved(ReservedRanges()).smem
        assert smem is not None
        return smem
    try:
        return find_smem(target.memory, target.name)
    except TargetError as error:
        try:
            return find_kinfo(target.memory, target.name)
        except TargetError:
            what, _, advice = str(error).partition("\n")
            raise TargetError(f"{what}, and no debug_kinfo\n{advice}") from error


def _collect(target: Target, options: Options) -> FirmwareDump:
    from kmemdump.firmware_dumps.kinfo import collect_kinfo
    from kmemdump.firmware_dumps.minidump_table import collect_table

    place = find_table(target, options)
    if isinstance(place, Range):
        return collect_table(target.memory, place, target.name)
    return collect_kinfo(target.memory, place, target.name)


def _matches(row: Row, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(row.file_name, pattern) for pattern in patterns)


@contextmanager
def _connect(spec: str) -> Iterator[Connection]:
    from kmemdump.collect.sahara import SocketConnection

    kind, _, rest = spec.partition(":")
    if kind == "sahara":
        if not rest:
            raise UsageError(f"{spec!r}: expected sahara:SOCKET")
        with SocketConnection(Path(rest)) as connection:
            yield connection
        return
    # Here, for it needs what not everybody has installed.
    from kmemdump.collect.usb import UsbConnection

    with UsbConnection(rest or None) as device:
        yield device


def _check_new(folder: Path) -> None:
    try:
        used = folder.exists() and any(folder.iterdir())
    except OSError as error:
        raise KmemdumpError(f"{folder}: {error.strerror}") from error
    if used:
        raise KmemdumpError(
            f"{folder}: is not empty, expected a new folder for the dump"
        )


def _has_files(folder: Path) -> bool:
    with suppress(OSError):
        return any(it.name.lower().endswith(".bin") for it in folder.iterdir())
    return False


def _refuse_kinfo(spec: str) -> None:
    """Say what a file is that looks like what can be collected, and is not."""
    if kinfo_in_file(spec) is not None:
        raise TargetError(
            f"{spec}: is a kinfo, which has addresses and no memory\n"
            "'kmemdump regions' lists them; expected the RAM image that it was in"
        )


def kinfo_in_file(spec: str) -> Kinfo | None:
    """
    Read a file that is nothing but a kinfo.

    :return: ``None`` if it is something else.
    :raises FormatError: If it starts like one, and makes no sense.
    """
    try:
        with open(spec, "rb", opener=_without_waiting) as file:
            data = file.read(PAGE_SIZE)
    except (OSError, ValueError):
        return None  # Others say better why it cannot be opened.
    if not data.startswith(b"\xff\xdd\xee\xcc"):
        return None
    from kmemdump.formats.kinfo import parse_kinfo

    return parse_kinfo(data, spec)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # For the writer of a FIFO.
