# SPDX-License-Identifier: GPL-2.0-or-later
"""A core image, or any other target, opened for questions."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from drgn import Program

from kmemdump.coreimage import Manifest, verify
from kmemdump.errors import BudgetExceededError, QuestionError
from kmemdump.kernel.attach import Kernel, attach
from kmemdump.memory.reading import Budget
from kmemdump.opening import open_target
from kmemdump.questions.parse import parse_questions
from kmemdump.questions.question import Question, attempt, explain
from kmemdump.targets import Closing, Target
from kmemdump.targets.vmcore import core_of

if TYPE_CHECKING:
    from kmemdump.kernel.build_cache import BuildCache
    from kmemdump.report.report import Report

__all__ = ["Core", "open_core"]

_BUDGET = Budget(reads=20_000_000, bytes=2 << 30, seconds=300)
"""Ends a question that would run forever on a damaged kernel."""


class Core(Closing):
    """
    A core image, opened for questions. A ``with`` statement closes it.

    :param target: The kernel's memory; closed together with this object.
    :param vmlinux: The kernel's debug file, to be used instead of kallsyms and BTF.
    :param builds: Keeps what is made of symbols and types, for the next core image of
        the same kernel.
    """

    def __init__(
        self,
        target: Target,
        *,
        vmlinux: Path | None = None,
        builds: BuildCache | None = None,
    ) -> None:
        self.target = target
        self._vmlinux = vmlinux
        self._builds = builds

    @cached_property
    def kernel(self) -> Kernel:
        """The kernel in the target; raises :exc:`KmemdumpError` if there is none."""
        return attach(
            self.target, vmlinux=self._vmlinux, builds=self._builds, marking=False
        )

    @property
    def prog(self) -> Program:
        """The kernel as a :class:`drgn.Program`."""
        return self.kernel.prog

    @property
    def manifest(self) -> Manifest | None:
        """
        The core image's manifest; ``None`` if kmemdump did not write the image.

        :raises FormatError: If the manifest is damaged.
        """
        core = core_of(self.target)
        return core.manifest if core else None

    def verify(self) -> list[str]:
        """
        Check a core image against its manifest. This reads the whole file.

        :return: The problems, one line each; none if the image is whole, or if the
            target is of another kind.
        """
        core = core_of(self.target)
        return verify(core) if core else []

    def ask(self, question: str | Question) -> str:
        """
        Put a question, and return the answer.

        :param question: One of drgn's crash commands (``ps``, ``bt -a``); ``FILE.py``,
            whose public functions are called with a :class:`drgn.Program`; or a
            :class:`~kmemdump.Question`.
        :raises QuestionError: If there is no answer, or only a part of it.
        :raises UsageError: If *question* is none of these.
        """
        answers = []
        for item in parse_questions([question]):
            text, error = self.attempt(item)
            answers.append(text)
            if error is not None:
                raise QuestionError(item.text, explain(error), "".join(answers))
        return "".join(answers)

    def attempt(self, question: Question) -> tuple[str, BaseException | None]:
        """Put a question; return its output, and the exception if it failed."""
        try:
            with self.kernel.recorder.reading(_BUDGET, question.text):
                return attempt(self.prog, question)
        except BudgetExceededError as error:
            return "", error

    def report(self, *, all_stacks: bool = True) -> Report:
        """
        Find out what happened to the kernel.

        :param all_stacks: Whether to find the stacks of all tasks, which take as long
            as all else together.
        :raises KmemdumpError: If there is no kernel that can be looked at.
        """
        # Loading it takes longer than a question.
        from kmemdump.report.gather import gather
        from kmemdump.report.inspect import read_manifest

        name = self.target.name
        # First: what this reads of the file need not be read once more to verify it.
        kernel = self.kernel
        manifest, damage = read_manifest(self.target)
        return gather(
            kernel,
            name,
            manifest,
            damage,
            captured=datetime.now(UTC) if name.startswith("qmp:") else None,
            held=self.target.memory.ranges,
            all_stacks=all_stacks,
        )

    def close(self) -> None:
        """Close the target."""
        self.target.close()


def open_core(
    path: str | os.PathLike[str],
    *,
    vmlinux: str | os.PathLike[str] | None = None,
    vmcoreinfo: str | os.PathLike[str] | None = None,
    memory_map: str | None = None,
    damaged: bool = False,
    identity: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
) -> Core:
    """
    Open a core image for questions.

    The other parameters are those of :func:`kmemdump.open_target`.

    :param path: A core image, or any other target.
    :param vmlinux: The kernel's debug file, to be used instead of kallsyms and BTF.
    :param identity: File, or files, of private keys for a sealed core image.
    :raises KmemdumpError: If it cannot be opened.
    """
    target = open_target(
        os.fspath(path),
        vmcoreinfo=None if vmcoreinfo is None else Path(vmcoreinfo),
        memory_map=memory_map,
        damaged=damaged,
        identity=identity,
    )
    return Core(target, vmlinux=None if vmlinux is None else Path(vmlinux))
