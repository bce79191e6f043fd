# SPDX-License-Identifier: GPL-2.0-or-later
"""Policies: those that come with kmemdump, and hostile ones."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.errors import FormatError, UsageError
from kmemdump.redaction.policy import POLICIES, Action, load_policy, parse_policy

GOOD = 'version = 1\nname = "acme"\nbase = "strict"\n'


@pytest.mark.parametrize("name", POLICIES)
def test_the_policies_that_come_with_kmemdump(name):
    policy = load_policy(name)
    assert policy.name == name
    assert policy.kinds["host-names"] is Action.MASK
    assert policy.kinds["network-addresses"] is Action.ZERO


def test_a_policy_is_its_base_but_for_what_it_says(tmp_path):
    path = tmp_path / "acme.toml"
    path.write_text(
        GOOD
        + '[kinds]\ntask-names = "keep"\nlog-text = "patterns"\n'
        + "[patterns]\nemployee = 'E[0-9]{6}'\n"
    )
    policy, base = load_policy(str(path)), load_policy("strict")
    assert policy.kinds["task-names"] is Action.KEEP
    assert policy.kinds["paths"] is base.kinds["paths"]
    assert policy.patterns["employee"].search("by E123456")
    assert policy.words == base.words


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version = 2", "acme: version: is 2, expected 1"),
        ("", "acme: version: is missing"),
        ("version = 'x'", "acme: version: is 'x', expected a number"),
        ("version = true", "acme: version: is True, expected a number"),
        ("{", "acme: no TOML"),
        (GOOD.replace("acme", "A b"), "acme: name: is 'A b', expected up to 32"),
        (GOOD.replace("strict", "x"), "acme: base: is 'x', expected one of share"),
        ('version = 1\nname = "strict"\n', "acme: name: is 'strict', which comes"),
        (GOOD + "[kinds]\nfoo = 'keep'", "acme: kinds.foo: no kind of data, expected"),
        (GOOD + "[kinds]\nslack = 'keep'", "acme: kinds.slack: no policy decides"),
        (GOOD + "[kinds]\npaths = 'zero'", "acme: kinds.paths: is 'zero', expected"),
        (GOOD + "[kinds]\npaths = 1", "acme: kinds.paths: is 1, expected one of keep"),
        (GOOD + "kinds = 1", "acme: kinds: is 1, expected a table"),
        (GOOD + "[patterns]\na = '('", "acme: patterns.a: no regular expression"),
        (GOOD + "[patterns]\na = '[[a]'", "acme: patterns.a: no regular expression"),
        (GOOD + "[patterns]\na = 'x*'", "acme: patterns.a: matches an empty text"),
        (GOOD + "[patterns]\na = 1", "acme: patterns.a: expected a regular expression"),
        (GOOD + f"[words]\na = '{'a' * 2001}'", "acme: words.a: expected a regular"),
        (GOOD + "[text]\nspread = ['slack']", "acme: text.spread: has 'slack'"),
        (GOOD + "[text]\npublic = ['[']", "acme: text.public[0]: no regular"),
        (GOOD + "[text]\nfoo = 1", "acme: text: foo: no such entry"),
        (GOOD + "foo = 1", "acme: foo: no such entry"),
        ('version = 1\nname = "a"\n', "acme: kinds: says nothing about task-names"),
    ],
)
def test_what_is_wrong_with_a_policy_is_said(text, said):
    with pytest.raises(FormatError) as raised:
        parse_policy(text.encode(), "acme")
    assert str(raised.value).startswith(said)


def test_a_file_that_is_too_large_is_not_parsed(tmp_path):
    path = tmp_path / "big.toml"
    path.write_text("#" * (65 << 10))
    with pytest.raises(FormatError, match="expected at most 65536"):
        load_policy(str(path))


def test_a_name_that_is_no_policy():
    with pytest.raises(
        UsageError, match=r"no policy 'secret'; there are share, strict"
    ):
        load_policy("secret")


@given(
    st.binary(max_size=300) | st.text(max_size=300).map(lambda it: (GOOD + it).encode())
)
def test_any_bytes_are_a_policy_or_refused(data):
    with contextlib.suppress(FormatError):
        assert parse_policy(data, "acme").name
