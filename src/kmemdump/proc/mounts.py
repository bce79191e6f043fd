# SPDX-License-Identifier: GPL-2.0-or-later
"""``/proc/PID/mountinfo``: what is mounted where (proc_pid_mountinfo(5))."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from kmemdump.errors import FormatError, TargetError

__all__ = ["Mount", "parse_mountinfo", "read_mounts"]

_MAX_MOUNTS = 1 << 17
"""The kernel's own limit, fs.mount-max, is 100,000 for each namespace."""
# Ids of the mount and its parent, then those below; optional fields end with a dash.
_LINE = re.compile(
    r"\d+ \d+ (\d{1,10}):(\d{1,10}) (\S+) (\S+) \S+(?: \S+)*? - (\S+) (?:\S*) (\S+)"
)
_ESCAPE = re.compile(r"\\([0-7]{3})")
"""A blank, a tab, a newline or a backslash, in octal."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A file system that is mounted."""

    device: tuple[int, int]
    """Major and minor number of its files' device."""
    root: str
    """The folder of the file system that is mounted."""
    place: str
    """Where."""
    kind: str
    """Of the file system, such as ``tmpfs``."""
    options: tuple[str, ...]
    """Of the file system, such as ``pagesize=2M``."""


def parse_mountinfo(text: str, source: str) -> list[Mount]:
    """
    Parse the text of ``/proc/PID/mountinfo``.

    :raises FormatError: If it is something else.
    """
    found: list[Mount] = []
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            where = f"{source}, line {number}"
            raise FormatError(where, f"{line[:80]!r}, expected a mount")
        if len(found) == _MAX_MOUNTS:
            raise FormatError(source, f"more than {_MAX_MOUNTS} mounts")
        found.append(
            Mount(
                (int(match[1]), int(match[2])),
                _unescaped(match[3]),
                _unescaped(match[4]),
                match[5],
                tuple(match[6].split(",")),
            )
        )
    return found


def read_mounts(root: Path = Path("/")) -> list[Mount]:
    """
    Read what this process sees mounted.

    :param root: The folder with ``proc``.
    :raises TargetError: If there is no such file.
    :raises FormatError: If the file is something else.
    """
    path = root / "proc/self/mountinfo"
    try:
        text = path.read_text(errors="surrogateescape")  # As names of files are.
    except OSError as error:
        raise TargetError(f"{path}: {error.strerror}") from error
    return parse_mountinfo(text, str(path))


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)
