# SPDX-License-Identifier: GPL-2.0-or-later
"""
A folder of pstore: /sys/fs/pstore, or /var/lib/systemd/pstore or one below that.

Parts are joined in their order. Two logs of one boot (an oops, then the panic) overlap;
they are joined where they do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from kmemdump.errors import FormatError, TargetError
from kmemdump.formats.console import decode_text
from kmemdump.formats.logged_line import LoggedLine
from kmemdump.formats.pstore import PstoreName, parse_pstore_name, parse_pstore_part
from kmemdump.logs.log_text import LogText, parse_text, split_boots

__all__ = ["find_pstore_files", "is_pstore_file", "read_pstore"]

_MAX_FILES = 10_000
_MAX_BYTES = 4 << 20
"""Of a file; the largest record that a backend gives the kernel is 64 KiB, a console's
zone a few MiB."""
_MAX_TOTAL = 256 << 20
"""Of all files, as they are read: some are compressed."""
_DEPTH = 3
_JOINED = "dmesg.txt"
"""What systemd-pstore makes of the parts, in each folder of its own."""


@dataclass(frozen=True, slots=True)
class _Part:
    path: Path
    name: PstoreName
    reason: str
    count: int
    part: int
    text: bytes
    time: float


def is_pstore_file(path: Path) -> bool:
    """Return whether a file's name is that of a record of pstore."""
    return parse_pstore_name(path.name) is not None


def find_pstore_files(folder: Path) -> list[Path]:
    """Return the records below a folder; none if it is another folder."""
    found = sorted(_walk(folder, _DEPTH))
    return [path for path in found if is_pstore_file(path)] or [
        path for path in found if path.name == _JOINED
    ]


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            for count, entry in enumerate(entries):
                if count >= _MAX_FILES:
                    return
                path = folder / entry.name
                if entry.is_dir(follow_symlinks=False):
                    if depth > 1:
                        yield from _walk(path, depth - 1)
                elif entry.is_file(follow_symlinks=False):
                    yield path
    except OSError as error:
        raise TargetError(f"{folder}: {error.strerror}") from error


def read_pstore(name: str, paths: Sequence[Path]) -> LogText:
    """
    Read records of pstore.

    :raises TargetError: If none of them can be read.
    """
    problems: list[tuple[str, str]] = []
    parts: list[_Part] = []
    texts: list[tuple[float, bytes]] = []
    left = _MAX_TOTAL
    for path in paths[:_MAX_FILES]:
        if left <= 0:
            what = f"a part of the log, {path.name} and what follows"
            problems.append((what, f"the parts have more than {_MAX_TOTAL} bytes"))
            break
        try:
            part, text, time = _read(path)
        except (FormatError, TargetError) as error:
            problems.append((f"a part of the log, {path.name}", str(error)))
            continue
        left -= len(text) if part is None else len(part.text)
        if part is not None:
            parts.append(part)
        else:
            texts.append((time, text))
    logs = _join_boots([_join(group, problems) for group in _logs(parts)])
    if not logs:
        # What the console showed is the second best: it has no debug messages.
        logs = [
            list(boot)
            for _, text in sorted(texts)
            for boot in split_boots(parse_text(decode_text(text)))
        ]
    if not any(logs):
        reason = problems[0][1] if problems else f"{name}: no log in it"
        raise TargetError(reason)
    return LogText(name, tuple(tuple(log) for log in logs), problems=tuple(problems))


def _read(path: Path) -> tuple[_Part | None, bytes, float]:
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES)
            time = os.fstat(file.fileno()).st_mtime
    except OSError as error:
        raise TargetError(f"{path}: {error.strerror}") from error
    name = parse_pstore_name(path.name)
    if name is None or name.kind != "dmesg":
        return None, data, time
    part = parse_pstore_part(data, str(path), packed=name.packed)
    record = _Part(path, name, part.reason, part.count, part.part, part.text, time)
    return record, b"", time


def _logs(parts: Sequence[_Part]) -> list[list[_Part]]:
    """Return the parts of each log, the oldest log and the oldest part first."""

    # Records of EFI are named by their second; ramoops has but one part of each log.
    def place(part: _Part) -> tuple[str, int, str]:
        return str(part.path.parent), part.count, part.reason

    groups: list[list[_Part]] = []
    for _, group in groupby(sorted(parts, key=place), key=place):
        groups += _split_repeated(sorted(group, key=lambda it: (it.name.id, it.part)))
    groups.sort(key=lambda group: (min(it.time for it in group), group[0].count))
    return groups


def _split_repeated(parts: Sequence[_Part]) -> list[list[_Part]]:
    """Two logs in one folder may have the same number: each has but one part 1."""
    groups: list[dict[int, _Part]] = []
    for part in parts:
        free = next((group for group in groups if part.part not in group), None)
        if free is None:
            groups.append(free := {})
        free[part.part] = part
    return [[group[n] for n in sorted(group, reverse=True)] for group in groups]


def _join(parts: Sequence[_Part], problems: list[tuple[str, str]]) -> list[LoggedLine]:
    numbers = {part.part for part in parts}
    absent = [n for n in range(1, parts[0].part) if n not in numbers]
    if absent:
        words = ", ".join(str(n) for n in absent[:10])
        what = f"a part of the log of {parts[0].reason}#{parts[0].count}"
        problems.append((what, f"of {parts[0].part} parts, {words} are missing"))
    # A part ends where a line does.
    text = b"\n".join(part.text.rstrip(b"\n") for part in parts)
    return parse_text(decode_text(text))


def _join_boots(logs: Sequence[list[LoggedLine]]) -> list[list[LoggedLine]]:
    joined: list[list[LoggedLine]] = []
    for log in logs:
        if joined and (at := _overlap(joined[-1], log)) is not None:
            joined[-1] = joined[-1][:at] + log
        else:
            joined.append(log)
    return joined


def _overlap(before: Sequence[LoggedLine], log: Sequence[LoggedLine]) -> int | None:
    """Return where the later log begins in the earlier one; None if it does not."""
    first = next((line for line in log if line.nanoseconds is not None), None)
    if first is None:
        return None
    for i, line in enumerate(before):
        if (line.nanoseconds, line.text) == (first.nanoseconds, first.text):
            return i
    return None
