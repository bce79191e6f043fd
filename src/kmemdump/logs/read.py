# SPDX-License-Identifier: GPL-2.0-or-later
"""Read a kernel log from wherever somebody has it."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

from kmemdump.errors import FormatError, TargetError
from kmemdump.formats.console import decode_text
from kmemdump.formats.journal import parse_journal_export, parse_journal_json
from kmemdump.formats.kmsg_records import parse_kmsg
from kmemdump.formats.logged_line import LoggedLine
from kmemdump.logs.detect import SAMPLE, LogFormat, detect_log
from kmemdump.logs.log_text import MAX_LINES, LogText, parse_text, split_boots
from kmemdump.logs.pstore_folder import find_pstore_files, is_pstore_file, read_pstore
from kmemdump.targets.unsupported import has_magic
from kmemdump.text import shell_command

__all__ = ["MAX_LOG", "STANDARD_INPUT", "open_log", "parse_log"]

STANDARD_INPUT = "-"
MAX_LOG = 64 << 20
"""
Bytes that are read, the last ones of a file. The kernel's largest log has 32 MiB; a
serial console's may cover months.
"""
_MAX_STREAM = 4 << 30
"""Bytes of a pipe, or of a compressed file, after which there must be an end."""
_CHUNK = 1 << 20
_PATIENCE = 1.0
"""Seconds in which somebody must open a pipe to write into it."""

_UNPACKERS: dict[bytes, Callable[[BinaryIO], object]] = {
    b"\x1f\x8b\x08": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
_BINARY_JOURNAL = b"LPKSHHRH"


def open_log(spec: str) -> LogText | None:
    """
    Read a kernel log.

    :param spec: Path of a file, of a pipe or of a folder of pstore, or ``-`` for
        standard input.
    :return: ``None`` if *spec* is something else, such as a dump of memory.
    :raises TargetError: If it is a log that cannot be read.
    :raises FormatError: If it is a journal's, and damaged.
    """
    if spec == STANDARD_INPUT:
        return _read_stream(sys.stdin.buffer, "standard input")
    path = Path(spec)
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return None  # A VM, or nothing: who opens it says so.
    if stat.S_ISDIR(mode):
        files = find_pstore_files(path)
        return read_pstore(spec, files) if files else None
    if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
        return None
    if stat.S_ISREG(mode) and is_pstore_file(path):
        return read_pstore(spec, [path])
    try:
        if stat.S_ISFIFO(mode):
            opened = _open_pipe(path)
            if opened is None:
                return None
            with opened[0] as pipe:
                return _read_stream(pipe, spec, opened[1])
        with open(path, "rb") as file:
            return _read_file(file, spec)
    except OSError as error:
        raise TargetError(f"{spec}: {error.strerror or error}") from error


def _open_pipe(path: Path) -> tuple[BinaryIO, bytes] | None:
    """
    Open a pipe such as a shell's ``<(COMMAND)``; None if nobody writes into it.

    :return: Also what was read to find that out.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    deadline = time.monotonic() + _PATIENCE
    first = b""
    with suppress(BlockingIOError):  # There is a writer, who has written nothing yet.
        while not (first := os.read(fd, 1)):
            if time.monotonic() > deadline:
                os.close(fd)
                return None
            time.sleep(0.01)
    os.set_blocking(fd, True)
    return open(fd, "rb"), first


def parse_log(data: bytes, name: str) -> LogText:
    """
    Parse a log that was read.

    :raises TargetError: If it is no log.
    :raises FormatError: If it is a journal's, and damaged.
    """
    kind = detect_log(data)
    if kind is None:
        raise TargetError(f"{name}: is not text, expected a kernel log")
    lines: list[LoggedLine]
    lost = 0
    problems: list[tuple[str, str]] = []
    if kind is LogFormat.JOURNAL_EXPORT:
        lines = parse_journal_export(data, name)
    elif kind is LogFormat.JOURNAL_JSON:
        lines = parse_journal_json(decode_text(data), name)
    elif kind is LogFormat.KMSG:
        log = parse_kmsg(data)
        lines, lost = list(log.lines), log.lost
        if log.cut:
            problems.append((f"a part of {log.cut} records", "packets were lost"))
    else:
        lines = parse_text(decode_text(data))
    if len(lines) >= MAX_LINES:
        problems.append(("a part of the log", f"it has more than {MAX_LINES} lines"))
        lines = lines[:MAX_LINES]
    return LogText(name, split_boots(lines), lost, tuple(problems))


def _read_file(file: BinaryIO, name: str) -> LogText | None:
    head = file.read(SAMPLE)
    if head.startswith(_BINARY_JOURNAL):
        raise TargetError(
            f"{name}: is a file of systemd's journal\n"
            f"{shell_command('journalctl', '--file', name)} -k -o export | "
            "kmemdump report -"
        )
    for magic, unpack in _UNPACKERS.items():
        if head.startswith(magic):
            file.seek(0)
            return _unpack(cast(BinaryIO, unpack(file)), name)
    if has_magic(head) or detect_log(head) is None:
        return None
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - MAX_LOG, 0))
    return _shortened(file.read(MAX_LOG), name, max(size - MAX_LOG, 0))


def _unpack(file: BinaryIO, name: str) -> LogText | None:
    try:
        head = file.read(SAMPLE)
        if detect_log(head) is None:
            return None
        return _shortened(*_last_bytes(file, head, name))
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise FormatError(name, f"is compressed, and damaged: {error}") from error


def _read_stream(file: BinaryIO, name: str, first: bytes = b"") -> LogText:
    head = first + file.read(SAMPLE)
    if detect_log(head) is None:
        what = "is empty" if not head.strip() else "is not text"
        raise TargetError(f"{name}: {what}, expected a kernel log")
    return _shortened(*_last_bytes(file, head, name))


def _last_bytes(file: BinaryIO, head: bytes, name: str) -> tuple[bytes, str, int]:
    """Return the last bytes of a stream, its name, and how many came before them."""
    kept, total = bytearray(head), len(head)
    while chunk := file.read(_CHUNK):
        kept += chunk
        total += len(chunk)
        if total > _MAX_STREAM:
            raise TargetError(f"{name}: more than {_MAX_STREAM} bytes")
        if len(kept) > 2 * MAX_LOG:
            del kept[:-MAX_LOG]
    del kept[:-MAX_LOG]
    return bytes(kept), name, total - len(kept)


def _shortened(data: bytes, name: str, before: int) -> LogText:
    """
    Parse the end of a log.

    :param before: How many bytes stood before it.
    """
    if before:
        data = data[data.find(b"\n") + 1 :]
    log = parse_log(data, name)
    if not before:
        return log
    loss = ("the start of the log", f"only the last {MAX_LOG >> 20} MiB are read")
    return replace(log, problems=(loss, *log.problems))
