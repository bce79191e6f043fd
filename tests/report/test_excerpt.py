# SPDX-License-Identifier: GPL-2.0-or-later
"""Which records of the log are shown."""

import pytest

from kmemdump.diagnosis.records import Cause, CauseKind
from kmemdump.kernel.printk import LogRecord
from kmemdump.report.records import KernelIdentity, Times
from kmemdump.report.report import Report
from kmemdump.report.text import find_excerpt

FIRST = 1000  # Older ones were overwritten.


def report(total, *told, kind=CauseKind.PANIC, fatal=True):
    log = [
        LogRecord(FIRST + i, i * 10**9, 6, 0, 1, False, f"line {i}")
        for i in range(total)
    ]
    cause = Cause(kind, "It died.", tuple(log[i] for i in told), fatal=fatal)
    return Report("x", KernelIdentity("6.1.0"), Times(), cause, log=log)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (report(0), range(0)),
        (report(7), range(7)),
        (report(400), range(370, 400)),
        # Ten records, then the first that tells of the death, and the rest.
        (report(400, 340, 390), range(330, 400)),
        (report(400, 395), range(370, 400)),
        (report(50, 4), range(50)),
        # Bounded: what led to the death rather than what followed it.
        (report(400, 200, 399), range(190, 290)),
        # Complaints may be old; the end of the log is not left out for them.
        (report(400, 20, 350, kind=CauseKind.HANG), range(340, 400)),
        (report(400, 20, kind=CauseKind.HANG), range(370, 400)),
        (report(400, 20, kind=CauseKind.UNKNOWN, fatal=False), range(370, 400)),
        (report(400, 20, kind=CauseKind.OOPS, fatal=False), range(370, 400)),
    ],
)
def test_excerpt(found, expected):
    assert find_excerpt(found) == expected


def test_short():
    """As the demo prints it."""
    assert find_excerpt(report(400, 340, 390), most=15) == range(330, 345)
    assert find_excerpt(report(400, 398), most=15) == range(385, 400)
    assert find_excerpt(report(400), most=15) == range(385, 400)


def test_lines_that_somebody_asks_for():
    assert find_excerpt(report(400, 340), 5) == range(395, 400)
    assert find_excerpt(report(400, 340), 0) == range(400, 400)
    assert find_excerpt(report(400, 340), 9999) == range(400)
