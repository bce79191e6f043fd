# SPDX-License-Identifier: GPL-2.0-or-later
"""
What kmemdump reads in syzkaller's texts, compared with syzkaller's own titles.

    PYTHONPATH=tests python -m benchmarks.causes

prints how many kinds and functions agree, the confusion by kind, and each difference.
"""

from __future__ import annotations

import re
import time
from collections import Counter

from rigs.console_logs import compare_with_titles, syzkaller_reports

_MOST = 40


def main() -> None:
    """Print the comparison."""
    reports = [it for it in syzkaller_reports() if it.titles and not it.corrupted]
    size = sum(len(line.text) + 1 for report in reports for line in report.lines)
    start = time.process_time()
    found = compare_with_titles(reports)
    seconds = time.process_time() - start
    print(f"{len(found)} texts, {size / 1e6:.1f} MB, {size / 1e6 / seconds:.1f} MB/s")
    _rate("kind", [it.kind_right for it in found])
    _rate("function", [it.function_right for it in found])
    _rate("newer", [it.function_right for it in found if it.number > 370])
    print("\nkind by syzkaller, kind by kmemdump, texts:")
    pairs = Counter((_short(it.title), it.kind) for it in found)
    for (title, kind), count in sorted(pairs.items()):
        print(f"{title:<{_MOST}} {kind:<{_MOST}} {count:4}")
    print("\ndifferences:")
    for item in sorted(found, key=lambda it: it.number):
        if False in (item.kind_right, item.function_right):
            print(f"{item.number:4} {item.title[:70]:<70} {item.kind} {item.function}")


def _rate(name: str, right: list[bool | None]) -> None:
    known = [item for item in right if item is not None]
    print(f"{name:<9} {sum(known)}/{len(known)} {sum(known) / len(known):.1%}")


def _short(title: str) -> str:
    return re.sub(r" (?:in|at) .*", "", title)[:_MOST]


if __name__ == "__main__":
    main()
