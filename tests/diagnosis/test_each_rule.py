# SPDX-License-Identifier: GPL-2.0-or-later
"""Each rule of the grammars says something, whatever its lines say."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kmemdump.diagnosis.event_grammar import EVENTS
from kmemdump.diagnosis.log_cause import diagnose_log
from kmemdump.diagnosis.log_line import LogLine
from kmemdump.diagnosis.panic_grammar import PANICS

PANIC = "Kernel panic - not syncing: "


def say(*texts):
    return diagnose_log([LogLine(text, i, i / 10) for i, text in enumerate(texts, 1)])


TEXT = st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="?")
"""Without what stands for what a line does not say."""


@pytest.mark.parametrize("rule", PANICS, ids=lambda it: it.kind)
@given(st.data())
@settings(max_examples=20)
def test_messages_of_panic(rule, data):
    message = data.draw(st.from_regex(rule.pattern, alphabet=TEXT))
    found = say("Linux version 6.1", PANIC + message)
    assert found is not None
    assert found.sentence.endswith(".")
    assert "?" not in found.sentence + found.title


@pytest.mark.parametrize("rule", EVENTS, ids=lambda it: it.kind)
@given(st.data())
@settings(max_examples=20)
def test_other_lines(rule, data):
    text = data.draw(st.from_regex(rule.pattern, alphabet=TEXT))
    found = say("Linux version 6.1", text, "Call Trace:", " f+0x1/0x2")
    if found is not None:  # It is an event only where the kernel begins a line with it.
        assert found.sentence.endswith(".")


@pytest.mark.parametrize("rest", ["{}", "{", "}", "{0}", "{what}", "{message.x}", "%s"])
def test_a_text_with_braces_is_a_text(rest):
    found = say("Linux version 6.1", f"{PANIC}foo {rest}")
    assert found.sentence == f"The kernel panicked: foo {rest}."
    assert found.title == f"kernel panic: foo {rest}"
    assert rest in say("Linux version 6.1", f"{PANIC}Xen: bad {rest}").sentence
