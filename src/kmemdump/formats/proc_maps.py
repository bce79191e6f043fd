# SPDX-License-Identifier: GPL-2.0-or-later
"""``/proc/PID/maps``: the mappings of a process (proc_pid_maps(5))."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kmemdump.errors import FormatError

__all__ = ["Mapping", "parse_maps"]

_MAX_MAPPINGS = 1 << 16
"""The kernel's own limit, /proc/sys/vm/max_map_count, is 65530."""
# Device numbers are in hexadecimal, the inode in decimal. A newline in a path is
# written as \012.
_LINE = re.compile(
    r"([0-9a-f]{1,16})-([0-9a-f]{1,16}) ([r-])([w-])([x-])([ps]) ([0-9a-f]{1,16}) "
    r"([0-9a-f]{1,8}):([0-9a-f]{1,8}) ([0-9]{1,20})(?: +(.*))?"
)


@dataclass(frozen=True, slots=True)
class Mapping:
    """A mapping of a process."""

    start: int
    """Address in the process, in bytes."""
    end: int
    readable: bool
    writable: bool
    executable: bool
    shared: bool
    """Whether what is written there goes to the file."""
    offset: int
    """Offset in the file, in bytes."""
    device: tuple[int, int]
    """Major and minor number of the file's device; 0 if there is no file."""
    inode: int
    """0 if there is no file."""
    name: str
    """Path of the file, or what the kernel calls the mapping, such as ``[heap]``."""

    @property
    def size(self) -> int:
        return self.end - self.start


def parse_maps(text: str, source: str) -> list[Mapping]:
    """
    Parse the text of ``/proc/PID/maps``.

    :raises FormatError: If it is something else.
    """
    found: list[Mapping] = []
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        match = _LINE.fullmatch(line)
        where = f"{source}, line {number}"
        if match is None:
            raise FormatError(where, f"{line[:80]!r}, expected a mapping")
        start, end = int(match[1], 16), int(match[2], 16)
        if end <= start or (found and start < found[-1].end):
            raise FormatError(where, f"{line[:80]!r}: ends too early, or out of order")
        if len(found) == _MAX_MAPPINGS:
            raise FormatError(source, f"more than {_MAX_MAPPINGS} mappings")
        found.append(
            Mapping(
                start,
                end,
                readable=match[3] == "r",
                writable=match[4] == "w",
                executable=match[5] == "x",
                shared=match[6] == "s",
                offset=int(match[7], 16),
                device=(int(match[8], 16), int(match[9], 16)),
                inode=int(match[10]),
                name=match[11] or "",
            )
        )
    return found
