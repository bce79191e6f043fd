# SPDX-License-Identifier: GPL-2.0-or-later
"""No log makes the diagnosis raise, or takes it more than time in proportion."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.diagnosis.log_cause import diagnose_log
from kmemdump.diagnosis.log_line import LogLine
from kmemdump.diagnosis.rust_names import source_name
from kmemdump.diagnosis.signature import MAX_SIGNATURE
from rigs.console_logs import deaths, syzkaller_reports

REAL = [line.text for death in deaths() for line in death.lines][::7]
PIECES = st.sampled_from(REAL) | st.text(max_size=80)
LINES = st.lists(
    st.tuples(
        st.one_of(PIECES, st.tuples(PIECES, PIECES).map("".join)),
        st.sampled_from([None, "T1", "T77", "C0", "C1"]),
    ),
    max_size=60,
)


def as_log(texts):
    return [LogLine(text, i, i / 10, None) for i, text in enumerate(texts, 1)]


@given(LINES)
def test_any_lines(pairs):
    lines = [LogLine(text, i, None, who) for i, (text, who) in enumerate(pairs, 1)]
    found = diagnose_log(lines)
    if found is not None:
        assert found.sentence.endswith(".")
        assert len(found.signature.text) <= MAX_SIGNATURE
        assert found.signature.text.isprintable()
        assert set(found.evidence) <= set(lines)


@given(st.data())
def test_real_logs_cut_anywhere(data):
    death = data.draw(st.sampled_from(list(deaths())))
    start = data.draw(st.integers(0, len(death.lines)))
    stop = data.draw(st.integers(start, len(death.lines)))
    length = data.draw(st.integers(0, 120))
    diagnose_log(
        [
            LogLine(it.text[:length], it.number, it.seconds, it.caller)
            for it in death.lines[start:stop]
        ]
    )


@given(
    st.text(max_size=40) | st.from_regex(r"_R[NvMXYBCst0-9_a-z]{0,40}", fullmatch=True)
)
def test_any_name(name):
    assert isinstance(source_name(name), str)


BAIT = [
    "BUG: KASAN: " + "a-" * 400,
    "WARNING: CPU: 1 PID: 1 at " + "a/" * 300 + ".c:",
    "WARNING: [" + "] " * 300,
    "INFO: task " + ":" * 500,
    " " * 600 + "+0x",
    "(" * 300 + "a from (" * 40,
    "[<ffff>] " * 60 + "a+0x1/0x2",
    "CPU: 0 PID: 0 Comm: " + " " * 500,
    "usercopy: Kernel memory " * 30,
    "Kernel panic - not syncing: " + "EXT4-fs (" * 80,
    "stack-protector: Kernel stack is corrupted in: " + "a" * 900,
    "general protection fault " * 30,
    "a" * 1000,
    "BUG: Dentry " + "{" * 500,
    "rcu: \t0-" + "." * 500,
    "Tasks blocked on level" * 40,
    "name: " + "(device 1) in task a (pid 1) " * 60,
]


def seconds_for(texts):
    lines = as_log(texts)
    start = time.process_time()
    diagnose_log(lines)
    return time.process_time() - start


@pytest.mark.parametrize("bait", BAIT, ids=lambda it: it[:20])
@pytest.mark.parametrize(
    "size", [50_000, pytest.param(1_000_000, marks=pytest.mark.matrix)]
)
def test_time_is_in_proportion(bait, size):
    """Lines of which each is made for a pattern to try long."""
    assert seconds_for([bait] * (size // len(bait))) < 16e-6 * size


def test_time_of_one_endless_line():
    for bait in BAIT:
        assert seconds_for([bait * (1_000_000 // len(bait))]) < 1


@pytest.mark.matrix
def test_real_logs_are_fast():
    texts = [line.text for it in syzkaller_reports() for line in it.lines][:20_000]
    assert seconds_for(texts) < 8
