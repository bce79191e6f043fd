# SPDX-License-Identifier: GPL-2.0-or-later
"""
Kernel logs of real deaths, and what is known of them.

``deaths.tar.xz``: logs from public bug reports, with the sentence that an expert would
write (``expected.tsv``); ``words.tsv`` has the words of these that matter.
``syzkaller.tar.xz``: texts with the titles that syzkaller's own parser gives them, from
pkg/report/testdata/linux of that project (Apache-2.0; the licence is in the archive).
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from kmemdump.diagnosis.log_line import LogLine
from kmemdump.diagnosis.stack_lines import plain_function

_DATA = Path(__file__).parent.parent / "diagnosis" / "data"
_PREFIX = re.compile(
    r"(?:\w{3}\s+\d+ \d\d:\d\d:\d\d \S+ kernel: ?|\d{4}-\d\d-\d\dT\S+ \S+ kernel: ?)?"
    r"(?:<\d+>)?(?:\[ *(\d+\.\d+)\](?:\[ *([TC]\d+)\])? ?)?"
)


def read_lines(text: str) -> list[LogLine]:
    """Return the lines of a console log without their prefixes."""
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("# "):
            continue
        match = _PREFIX.match(line)
        assert match is not None
        seconds = float(match[1]) if match[1] else None
        lines.append(LogLine(line[match.end() :], number, seconds, match[2]))
    return lines


@cache
def _texts(name: str) -> dict[str, str]:
    with tarfile.open(_DATA / f"{name}.tar.xz") as archive:
        return {
            Path(item.name).name: file.read().decode("utf-8", "replace")
            for item in archive
            if (file := archive.extractfile(item)) is not None
        }


@dataclass(frozen=True, slots=True)
class Death:
    """A log of a real death."""

    name: str
    functions: str
    """Those that an expert would name, separated by ``|``; ``*``: any, ``-``: none."""
    words: tuple[str, ...]
    lines: list[LogLine] = field(repr=False)


def deaths() -> Iterator[Death]:
    """Yield the logs of real deaths that count: 64-bit kernels."""
    texts = _texts("deaths")
    for line in (_DATA / "words.tsv").read_text().splitlines():
        if not line.startswith("#"):
            name, functions, words = line.split("\t")
            lines = read_lines(texts[f"{name}.txt"])
            yield Death(name, functions, tuple(words.split(" & ")), lines)


@dataclass(frozen=True, slots=True)
class Report:
    """A text of syzkaller's tests."""

    number: int
    titles: tuple[str, ...]
    """The title, and others that are as good; empty if the text is of no bug."""
    corrupted: bool
    """Whether no good title is possible."""
    lines: list[LogLine] = field(repr=False)

    @property
    def functions(self) -> frozenset[str]:
        """Functions in the titles, in the form that :mod:`kmemdump.diagnosis` has."""
        return frozenset(name for it in self.titles for name in _functions(it))


def _functions(title: str) -> Iterator[str]:
    _, found, name = title.rpartition(" in ")
    if found and name not in ("corrupted", "unmount"):
        name = name.partition(" / ")[0].partition(" at addr")[0]
        if name.startswith("<"):
            yield name
        else:
            yield from (same_function(part) for part in name.split("/"))


def same_function(name: str) -> str:
    """Return a name that is the same for all entries of one system call."""
    return re.sub(r"^k?sys_", "", plain_function(name))


def syzkaller_reports() -> Iterator[Report]:
    """Yield the texts of syzkaller's tests."""
    for name, text in sorted(_texts("syzkaller").items()):
        if not name.isdigit():
            continue
        head, _, body = text.partition("\n\n")
        titles = re.findall(r"^(?:TITLE|ALT): ?(.+)", head, re.MULTILINE)
        corrupted = "CORRUPTED: Y" in head
        lines = read_lines(body.partition("\nREPORT:")[0])
        yield Report(int(name), tuple(titles), corrupted, lines)
