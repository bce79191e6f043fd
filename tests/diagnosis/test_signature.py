# SPDX-License-Identifier: GPL-2.0-or-later
"""What two deaths of one cause have in common."""

import pytest

from kmemdump.diagnosis.event_kind import EventKind
from kmemdump.diagnosis.log_cause import diagnose_log
from kmemdump.diagnosis.log_line import LogLine
from kmemdump.diagnosis.signature import (
    MAX_SIGNATURE,
    SIGNATURE_VERSION,
    Signature,
    SignatureSource,
)

NULL = (
    "The kernel dereferenced a NULL pointer in lab_null+{}/0x20 [kmemdump_lab] "
    "(write at address {}) in task {} (pid {}) on CPU {}. The task was killed."
)


def make_signature(kind, sentence):
    found = Signature.of_words(kind, sentence)
    assert found.version == SIGNATURE_VERSION
    assert found.source is SignatureSource.WORDS
    return found.text


def test_one_cause():
    texts = {
        make_signature("oops", NULL.format("0x1a", "0x0", "sh", 12, 0)),
        make_signature("oops", NULL.format("0x1c", "0x8", "a (pid 1) b", 9999, 63)),
    }
    assert texts == {
        "oops: The kernel dereferenced a NULL pointer in lab_null [kmemdump_lab]. "
        "The task was killed."
    }


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        (
            "Task init (pid 1) made the kernel crash, through sysrq, on CPU 0",
            "A task made the kernel crash, through sysrq",
        ),
        (
            "frozen: CPUs 0, 3 served no interrupt for 10 s",
            "frozen: a CPU served no interrupt for # s",
        ),
        (
            "The kernel panicked in the idle task of CPU 7: bad page 0xffff888001",
            "The kernel panicked: bad page #",
        ),
        (
            "A CPU was stuck in f+0x1/0x2 of task x (pid 3) without",
            "A CPU was stuck in f without",
        ),
    ],
)
def test_what_varies_is_left_out(sentence, expected):
    assert make_signature("panic", sentence) == f"panic: {expected}"


def test_causes_differ():
    assert make_signature("oops", "in a") != make_signature("oops", "in b")
    assert make_signature("oops", "in a") != make_signature("panic", "in a")
    assert len(make_signature("panic", "x" * 1000)) == MAX_SIGNATURE


def test_function_is_enough():
    log = Signature.of_log("page fault", "lab_bad")
    stacks = Signature.of_stacks("page fault", "lab_bad")
    assert log.text == stacks.text == "page fault in lab_bad"
    assert (log.source, stacks.source) == (SignatureSource.LOG, SignatureSource.STACKS)
    # Without one, what the kernel said.
    first = Signature.of_log("panic", None, "modem 3 crashed at 0x1234")
    assert first.text == "panic: modem # crashed at #"
    assert len(Signature.of_log("panic", "x" * 1000).text) == MAX_SIGNATURE


@pytest.mark.parametrize("kind", ["general protection fault", "stack segment fault"])
def test_a_bad_pointer_is_one_on_each_architecture(kind):
    found = Signature.of_log(kind, "lab_bad")
    assert found == Signature.of_log("page fault", "lab_bad")
    assert found != Signature.of_log("null dereference", "lab_bad")


@pytest.mark.parametrize(
    ("first", "second"),
    [("lab_poll+0x10/0x20 [lab]", "default_idle+0x9/0x10"), ("f+0x1/0x2", "")],
)
def test_an_nmi_is_told_by_its_reason(first, second):
    """It hits whatever runs at that moment."""
    texts = {nmi_at(place, "NMI: Not continuing") for place in (first, second)}
    assert texts == {"nmi: without a known reason"}
    assert nmi_at(first, "NMI IOCK error: Not continuing") == (
        "nmi: for an error of an I/O device (IOCK)"
    )


def nmi_at(place, panic):
    lines = [
        "CPU: 1 PID: 0 Comm: swapper/1 Not tainted 6.12.0",
        *([f"RIP: 0010:{place}"] if place else []),
        f"Kernel panic - not syncing: {panic}",
    ]
    found = diagnose_log(
        [LogLine(text, number, None, None) for number, text in enumerate(lines)]
    )
    assert found.kind == EventKind.NMI
    return found.signature.text
