# SPDX-License-Identifier: GPL-2.0-or-later
"""What two deaths of one cause have in common."""

import pytest

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
