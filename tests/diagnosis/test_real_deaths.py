# SPDX-License-Identifier: GPL-2.0-or-later
"""The cause of real deaths, as experts and other tools see them."""

import re

import pytest

from kmemdump.diagnosis.event_kind import EventKind
from kmemdump.diagnosis.log_cause import diagnose_log
from kmemdump.diagnosis.signature import SIGNATURE_VERSION, SignatureSource
from rigs.console_logs import deaths

DEATHS = list(deaths())


def test_how_many_count():
    assert len(DEATHS) == 74


@pytest.mark.parametrize("death", DEATHS, ids=lambda it: it.name)
def test_expert_would_say_so(death):
    found = diagnose_log(death.lines)
    for words in death.words:
        unsaid = words.startswith("!")
        match = re.search(words.removeprefix("!"), found.sentence)
        assert (match is None) == unsaid, (words, found.sentence)
    if death.functions == "-":
        assert found.function is None
    elif death.functions != "*":
        assert found.function in death.functions.split("|")


@pytest.mark.parametrize("death", DEATHS, ids=lambda it: it.name)
def test_sentence_is_well_formed(death):
    found = diagnose_log(death.lines)
    sentence = found.sentence
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    assert not re.search(r"  | [.,:;]|[{}]|\?|\.\.| set \.|:\.|\bNone\b", sentence)
    assert found.evidence
    assert all(line in death.lines for line in found.evidence)
    numbers = [line.number for line in found.evidence]
    assert numbers == sorted(set(numbers))
    assert found.signature.version == SIGNATURE_VERSION
    assert found.signature.source is SignatureSource.LOG
    assert not re.search(r"0x[0-9a-f]+|\.(?:isra|cold|part|llvm)", found.signature.text)
    if found.function and found.kind is not EventKind.NMI:
        assert found.signature.text.endswith(f" in {found.function}")
        assert found.function in found.title or found.kind == "rcu stall"
