# SPDX-License-Identifier: GPL-2.0-or-later
"""Causes and functions, compared with the titles that syzkaller's parser gives."""

import pytest

from kmemdump.diagnosis.log_cause import diagnose_log
from rigs.console_logs import compare_with_titles, syzkaller_reports


@pytest.mark.slow
def test_function_and_kind():
    reports = [it for it in syzkaller_reports() if it.titles and not it.corrupted]
    found = compare_with_titles(reports)
    assert len(found) > 570
    named = [it for it in found if it.function_right is not None]
    newer = [it for it in named if it.number > 370]
    kinds = [it for it in found if it.kind_right is not None]
    assert len(named) > 530
    assert len(kinds) > 540
    assert sum(it.function_right for it in named) / len(named) >= 0.92
    assert sum(it.function_right for it in newer) / len(newer) >= 0.94
    assert sum(it.kind_right for it in kinds) / len(kinds) >= 0.97


def test_what_is_no_event():
    """Texts in which syzkaller's parser finds nothing."""
    silent = [it for it in syzkaller_reports() if not it.titles]
    assert len(silent) > 30
    assert [it.number for it in silent if diagnose_log(it.lines) is not None] == []
