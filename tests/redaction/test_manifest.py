# SPDX-License-Identifier: GPL-2.0-or-later
"""What is left of a manifest."""

import pytest

from kmemdump.coreimage import read_core
from kmemdump.redaction.manifest import redacted_manifest
from kmemdump.redaction.policy import POLICIES, load_policy
from kmemdump.redaction.text import Masker
from rigs.small_core import write


def redacted(path, policy, **fields):
    with read_core(write(path)) as core:
        manifest = core.manifest._replace(**fields)
    masker = Masker(load_policy(policy), {"lab_null"}.__contains__)
    masker.add_value("vm-names", b"web1")
    return redacted_manifest(manifest, masker, [], [], [])


@pytest.mark.parametrize("policy", POLICIES)
def test_the_signature_of_a_function_stays(tmp_path, policy):
    left = redacted(tmp_path / "core", policy, signature="page fault in lab_null")
    assert left.signature == "page fault in lab_null"


@pytest.mark.parametrize(
    ("signature", "left"),
    [
        ("page fault in no_such_function", ""),
        ("panic: the secret of web1", ""),
        ("panic: a secret in lab_null", ""),
        ("", ""),
    ],
)
def test_strangers_do_not_get_words_of_the_log_in_a_signature(
    tmp_path, signature, left
):
    assert redacted(tmp_path / "core", "strict", signature=signature).signature == left


def test_a_signature_with_a_value_that_goes_is_no_signature(tmp_path):
    share = load_policy("share")
    assert "vm-names" in share.spread
    for signature, left in (
        ("panic: out of cards", "panic: out of cards"),
        ("panic: the cards of web1", ""),
    ):
        found = redacted(tmp_path / "core", "share", signature=signature)
        assert found.signature == left


def test_cause_and_name_of_the_vm(tmp_path):
    left = redacted(tmp_path / "core", "strict", cause="panic: my card", vm="web1")
    assert (left.cause, left.vm) == ("xxxxx: xx xxxx", "xxxx")
    assert left.redacted == "strict"
