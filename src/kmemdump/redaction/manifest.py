# SPDX-License-Identifier: GPL-2.0-or-later
"""What is left of a manifest."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from kmemdump.coreimage import AreaRecord, Manifest, QuestionRecord
from kmemdump.redaction.changes import Change
from kmemdump.redaction.look import Answer
from kmemdump.redaction.policy import Action
from kmemdump.redaction.text import Masker

__all__ = ["redacted_manifest"]

_UNASKED = "removed: nobody asked for it"
_UNANSWERED = "was not complete when it was marked"
_OWN_REGION = re.compile(r"[\w-]+@[0-9a-f]{1,16}")
_OF_FUNCTION = re.compile(r"[\w -]{1,40} in ([\w.]+)")
"""A signature without words of a log."""


def redacted_manifest(
    manifest: Manifest,
    masker: Masker,
    answers: Sequence[Answer],
    unasked: Collection[str],
    changes: Sequence[Change],
) -> Manifest:
    """
    Return what is left of a manifest.

    :param answers: Those of what is left: so no reason names what was removed.
    :param unasked: Questions that could not be asked.
    :param changes: How the answers changed.
    """
    policy = masker.policy
    names = [*filter(None, manifest.redacted.split(", ")), policy.name]
    problems = {(it.area, it.question): it.problem for it in answers}
    lost = {(it.area, it.question) for it in changes if it.problem is not None}

    def redacted(area: str, question: QuestionRecord) -> QuestionRecord:
        # Questions that can be asked stay, so that they can be asked again.
        asked = question.text not in unasked
        problem = problems.get((area, question.text)) if asked else _UNASKED
        gone = not asked or (area, question.text) in lost
        complete = question.complete and not gone
        return question._replace(
            text=question.text if asked else _logged(question.text, masker),
            complete=complete,
            reason="" if complete else problem or _UNANSWERED,
        )

    def of_area(area: AreaRecord) -> AreaRecord:
        questions = [redacted(area.name, it) for it in area.questions]
        reasons = [f"{it.text}: {it.reason}" for it in questions if it.reason]
        complete = area.complete and not reasons
        return area._replace(
            complete=complete,
            reason="" if complete else "; ".join(reasons) or _UNANSWERED,
            questions=questions,
        )

    keeps_names = policy.kinds["device-names"] is Action.KEEP
    return manifest._replace(
        cause=_logged(manifest.cause, masker),
        signature=_signature(manifest.signature, masker),
        vm=masker.mask_text("vm-names", manifest.vm),
        areas=[of_area(area) for area in manifest.areas],
        questions=[redacted("questions", it) for it in manifest.questions],
        regions=[
            it
            if keeps_names or _OWN_REGION.fullmatch(it.name)
            else it._replace(name=masker.mask_text("device-names", it.name))
            for it in manifest.regions
        ],
        redacted=", ".join(dict.fromkeys(names)),
    )


def _logged(text: str, masker: Masker) -> str:
    return masker.mask_text("log-text", text)


def _signature(text: str, masker: Masker) -> str:
    """
    Return a signature if all of it may stay.

    A part of one would be the signature of other deaths.
    """
    match = _OF_FUNCTION.fullmatch(text)
    if match is not None and masker.is_symbol(match[1]):
        return text
    return text if _logged(text, masker) == text else ""
