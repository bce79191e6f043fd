# SPDX-License-Identifier: GPL-2.0-or-later
"""The answers of a dump."""

from collections.abc import Iterable
from pathlib import Path

from kmemdump.kernel.attach import attach
from kmemdump.opening import open_target
from kmemdump.questions.crash_commands import command
from kmemdump.questions.question import answer


def answers(
    path: Path, questions: Iterable[str], vmlinux: Path | None = None
) -> dict[str, str]:
    """Return a dump's answers, without the line that names the dump."""
    target = open_target(str(path))
    try:
        prog = attach(target, vmlinux=vmlinux).prog
        return {
            text: answer(prog, command(text)).replace(str(path), "DUMP")
            for text in questions
        }
    finally:
        target.close()
