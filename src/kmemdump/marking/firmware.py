# SPDX-License-Identifier: GPL-2.0-or-later
"""Mark a kernel with its machine's firmware: in Qualcomm's minidump table."""

from __future__ import annotations

import os
from collections.abc import Iterable

from kmemdump.areas import Area
from kmemdump.marking.firmware_table import FirmwareTable, TableOptions
from kmemdump.marking.registration import Registration
from kmemdump.marking.selection import Selection, select
from kmemdump.memory.recorder import Budget
from kmemdump.questions.question import Question
from kmemdump.targets import Target

__all__ = ["mark_firmware", "register", "unmark_firmware"]


def mark_firmware(
    target: Target,
    table: TableOptions | None = None,
    *,
    areas: Iterable[str | Area] = (),
    questions: Iterable[str | Question] = (),
    symbols: Iterable[str] = (),
    regions: Iterable[tuple[str, int, int]] = (),
    vmlinux: str | os.PathLike[str] | None = None,
    budget: Budget | None = None,
) -> Registration:
    """
    Register the regions of a kernel with its firmware, which dumps them when it dies.

    Regions that another owner registered stay as they are.

    The keywords are those of :func:`kmemdump.capture`.

    :param target: This machine, or a VM that has its RAM in a shared file.
    :param table: Where the table is, and how it is written.
    :return: To be refreshed, and closed before the target is.
    :raises UsageError: If there is no such area or question, or the kernel uses the
        memory that is to be written.
    :raises UnsupportedError: If the target cannot be written, or another process writes
        to the table.
    :raises KmemdumpError: If there is no table, or no kernel that can be looked at.
    """
    selection = select(
        areas=areas,
        questions=questions,
        symbols=symbols,
        regions=regions,
        vmlinux=vmlinux,
        budget=budget,
    )
    return register(target, selection, table or TableOptions())


def register(
    target: Target, selection: Selection, options: TableOptions
) -> Registration:
    """Do what :func:`mark_firmware` does, with a selection."""
    table = FirmwareTable(target, options)
    try:
        return Registration(target, selection, table)
    except BaseException:
        table.close()
        raise


def unmark_firmware(target: Target, table: TableOptions | None = None) -> None:
    """
    Take off all that we have registered with a machine's firmware.

    :param table: Where the table is.
    :raises KmemdumpError: If there is no table that can be written.
    """
    with FirmwareTable(target, table or TableOptions()) as opened:
        opened.withdraw()
