# SPDX-License-Identifier: GPL-2.0-or-later
"""
Lines of the kernel log that belong together, and their meaning in words.

Only the kernel's own lines count. A process that may write to /dev/kmsg can write any
text, but not with the kernel's facility (devkmsg_write() in kernel/printk/printk.c).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from kmemdump.kernel.printk import LogRecord
from kmemdump.kernel.symbol_names import plain_name

__all__ = ["CPU_LINE", "END_TRACE", "Block", "kernel_records", "read_block"]

_LOG_KERN = 0  # Facility of the kernel, include/linux/syslog.h of libc.
_MAX_BLOCK = 100
"""Most lines of an oops or panic."""
END_TRACE = "---[ end trace"

CPU_LINE = re.compile(
    r"CPU: (\d+) (?:UID: \d+ )?PID: (\d+) Comm: (.*?) "
    r"(?:Kdump: \w+ )?(?:Not t|T)ainted"
)
_RIP = re.compile(r"(?:RIP: 0010:|pc : )(\S+\+0x\S+(?: \[\w+\])?)")
_ACCESS = re.compile(r"#PF: \w+ (\w+) access in kernel mode|(Write|Read) of size")
_ACCESS_BIT = re.compile(r"\bWnR = ([01])\b")  # aarch64: write, not read.
_ADDRESS = re.compile(r"address:? (?:0x)?([0-9a-f]{8,16})")


@dataclass(frozen=True, slots=True)
class Block:
    """The lines that one context logged from one record on, such as an oops."""

    records: Sequence[LogRecord]

    def search(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        return next((m for r in self.records if (m := pattern.search(r.text))), None)

    @property
    def cpu(self) -> int | None:
        match = self.search(CPU_LINE)
        return int(match[1]) if match else None

    @property
    def of_task(self) -> str:
        """In words, the task that the CPU ran."""
        match = self.search(CPU_LINE)
        if match is None:
            return ""
        if match[2] == "0":
            return " of its idle task"
        return f" of task {match[3]} (pid {match[2]})"

    @property
    def in_task(self) -> str:
        """In words, the task and the CPU."""
        match = self.search(CPU_LINE)
        if match is None:
            return ""
        if match[2] == "0":
            return f" in the idle task of CPU {match[1]}"
        return f" in task {match[3]} (pid {match[2]}) on CPU {match[1]}"

    @property
    def in_function(self) -> str:
        """In words, the function."""
        match = self.search(_RIP)
        if match is None:
            return ""
        name, plus, place = match[1].partition("+")
        return f" in {plain_name(name)}{plus}{place}"

    @property
    def access(self) -> str:
        """In words, the memory access that failed."""
        address, access = self.search(_ADDRESS), self.search(_ACCESS)
        if address is None:
            return ""
        bit = self.search(_ACCESS_BIT)
        verb = "access"
        if access:
            verb = (access[1] or access[2]).lower()
        elif bit:
            verb = "write" if bit[1] == "1" else "read"
        return f" ({verb} at address {int(address[1], 16):#x})"

    def key_records(self) -> Iterator[LogRecord]:
        """Yield the records that name the CPU, the task and the function."""
        for pattern in (CPU_LINE, _RIP):
            found = (record for record in self.records if pattern.search(record.text))
            yield from islice(found, 1)


def kernel_records(records: Sequence[LogRecord]) -> list[LogRecord]:
    """Return the records that the kernel itself wrote."""
    return [record for record in records if record.facility == _LOG_KERN]


def read_block(records: Sequence[LogRecord], start: int) -> Block:
    """Return the block that begins at an index."""
    caller = records[start].caller
    found = []
    for record in records[start : start + 4 * _MAX_BLOCK]:
        if record.caller != caller:
            continue  # A line of another CPU or task.
        found.append(record)
        if record.text.startswith(END_TRACE) or len(found) == _MAX_BLOCK:
            break
    return Block(found)
