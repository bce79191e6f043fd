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

from kmemdump.diagnosis.log_cause import diagnose_log
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
def log_files(name: str) -> dict[str, bytes]:
    """Return the files of an archive, by name: ``deaths`` or ``syzkaller``."""
    with tarfile.open(_DATA / f"{name}.tar.xz") as archive:
        return {
            Path(item.name).name: file.read()
            for item in archive
            if (file := archive.extractfile(item)) is not None
        }


def _texts(name: str) -> dict[str, str]:
    files = log_files(name)
    return {file: data.decode("utf-8", "replace") for file, data in files.items()}


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
    if found and not name.startswith(("corrupted", "unmount", "use [")):
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


_KINDS = tuple(
    (re.compile(pattern), frozenset(kinds.split("|")))
    for pattern, kinds in (
        ("KASAN", "kasan"),
        ("KMSAN", "kmsan"),
        ("KFENCE", "kfence"),
        ("KCSAN", "kcsan"),
        ("UBSAN", "ubsan"),
        ("WARNING: refcount", "refcount"),
        ("WARNING: ODEBUG", "odebug"),
        (".*usercopy", "usercopy"),
        ("(?:WARNING|INFO): suspicious RCU", "suspicious rcu usage"),
        ("INFO: rcu det", "rcu stall"),
        ("BUG: soft", "soft lockup"),
        ("INFO: task", "hung task"),
        ("general prot", "general protection fault|null dereference"),
        ("BUG: unable to handle kernel NULL", "null dereference"),
        ("BUG: unable to handle|Unhandled fault", "page fault|null dereference"),
        ("possible dead|WARNING: possible circ", "possible deadlock"),
        ("inconsistent lock", "inconsistent lock state"),
        ("kernel BUG", "bug|fortify|list corruption"),
        ("BUG: corrupted list", "list corruption"),
        ("memory leak", "memory leak"),
        ("BUG: (?:scheduling|sleeping)", "sleep in atomic context"),
        ("BUG: using", "per-cpu access in preemptible code"),
        ("kernel panic: (?:corrupted stack|stack is)", "stack corruption"),
        ("PANIC: double", "double fault|stack overflow"),
        ("BUG: stack guard|kernel stack over", "stack overflow"),
        ("BUG: Bad", "bad page state"),
        ("divide", "divide error"),
        ("int3", "int3"),
        ("stack segm", "stack segment fault"),
        ("BUG: (?:spinlock|rwlock)", "spinlock"),
        (
            "(?:BUG|WARNING): (?:bad unlock|still has|held lock|lock held|nested lock|"
            "workqueue leaked|MAX)|INFO: trying",
            "lock usage",
        ),
        ("WARNING: locking", "warning|lock usage|sleep in atomic context"),
        ("WARNING", "warning"),
        ("attempt to", "rust panic"),
        ("BUG: workqueue lock", "workqueue lockup"),
        ("kernel panic: Atte", "death of init|oops"),
        ("Internal error", "oops|alignment fault|external abort"),
        ("Align", "alignment fault"),
        ("kernel panic: VFS", "no root file system"),
        ("kernel panic: sysrq", "sysrq"),
        ("BUG: (?:Object|Dentry)|unregister_netd|VFS", "slab corruption|warning"),
        ("kernel panic: hung", "hung task"),
    )
)
"""Kinds of ours that a title of syzkaller's may mean, by its beginning."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A title of syzkaller's, and what we found."""

    number: int
    title: str
    kind: str
    function: str | None
    function_right: bool | None
    """``None`` if the title names no function."""
    kind_right: bool | None
    """``None`` if the title says nothing about the kind."""


def compare_with_titles(reports: list[Report]) -> list[Comparison]:
    """Compare what we find in texts with the titles that syzkaller's parser gives."""
    return [_compare(report) for report in reports]


def _compare(report: Report) -> Comparison:
    found = diagnose_log(report.lines)
    kind = "none" if found is None else str(found.kind)
    function = None if found is None else found.function
    right = None
    if report.functions:
        right = function is not None and same_function(function) in report.functions
    title = report.titles[0]
    kinds = next((kinds for it, kinds in _KINDS if it.match(title)), None)
    kind_right = None if kinds is None else kind in kinds
    return Comparison(report.number, title, kind, function, right, kind_right)
