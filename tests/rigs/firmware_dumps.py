# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the log of a firmware dump, and checks its memory."""

from pathlib import Path

from kmemdump.files import OpenFile
from kmemdump.firmware_dumps.assemble import FirmwareDump
from kmemdump.firmware_dumps.rawdump import collect_rawdump
from kmemdump.firmware_dumps.target import DumpTarget
from kmemdump.kernel.attach import attach
from kmemdump.questions.crash_commands import command
from kmemdump.questions.question import answer
from rigs.phone import Phone

__all__ = ["check", "log", "rawdump"]


def log(target: DumpTarget) -> str:
    """Return the kernel's log."""
    return answer(attach(target).prog, command("log"))


def check(collected: FirmwareDump, phone: Phone) -> None:
    """Check that all of the phone's memory is at its address."""
    for address, data in phone.expected.items():
        assert collected.memory.read(address, len(data)) == data


def rawdump(path: Path) -> FirmwareDump:
    file = OpenFile(path)
    try:
        return collect_rawdump(file)
    finally:
        file.close()
