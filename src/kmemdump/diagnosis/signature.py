# SPDX-License-Identifier: GPL-2.0-or-later
"""A short text that is the same for two deaths of one cause."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from kmemdump.diagnosis.event_kind import EventKind
from kmemdump.text import printable

__all__ = ["MAX_SIGNATURE", "SIGNATURE_VERSION", "Signature", "SignatureSource"]

MAX_SIGNATURE = 200
"""In characters."""
_MAX_MESSAGE = 1000
SIGNATURE_VERSION = 2
"""Signatures of two versions cannot be compared."""


class SignatureSource(StrEnum):
    """What a signature was made from."""

    LOG = "log"
    STACKS = "stacks"
    """The registers and stacks in a core image."""
    WORDS = "words"
    """A sentence: what was seen from outside, where nothing names a function."""


@dataclass(frozen=True, slots=True)
class Signature:
    """A short text that is the same for two deaths of one bug."""

    text: str
    """At most :data:`MAX_SIGNATURE` characters."""
    version: int
    source: SignatureSource

    @classmethod
    def of_log(cls, kind: str, function: str | None, message: str = "") -> Signature:
        """
        Return the signature of what a log says.

        :param message: What tells deaths of this kind apart, without a function.
        """
        return cls(_compose(kind, function, message), SIGNATURE_VERSION, _LOG)

    @classmethod
    def of_stacks(cls, kind: str, function: str | None) -> Signature:
        """Return the signature of what the stacks show."""
        return cls(_compose(kind, function), SIGNATURE_VERSION, _STACKS)

    @classmethod
    def of_words(cls, kind: str, sentence: str) -> Signature:
        """
        Return the signature of a death of which only a sentence is known.

        :param kind: In one word.
        :param sentence: Why the kernel died.
        """
        return cls(
            _compose(kind, None, sentence), SIGNATURE_VERSION, SignatureSource.WORDS
        )


_LOG, _STACKS = SignatureSource.LOG, SignatureSource.STACKS

# A pointer that is wrong causes the one or the other, by its value and by the
# architecture: on x86-64, one that is not canonical is no page fault.
_BAD_POINTERS: Mapping[str, str] = {
    EventKind.PROTECTION: EventKind.PAGE_FAULT,
    EventKind.STACK_SEGMENT: EventKind.PAGE_FAULT,
}


def _compose(kind: str, function: str | None, message: str = "") -> str:
    """
    Return the text of a signature.

    The callers are left out where a function is known: a compiler that inlines one of
    them, or another way to the same bug, would make another signature.
    """
    kind = text = _BAD_POINTERS.get(kind, kind)
    if function is not None:
        text = f"{kind} in {function}"
    elif message:
        message = message[:_MAX_MESSAGE]
        for pattern, replacement in _VARYING:
            message = pattern.sub(replacement, message)
        text = f"{kind}: {message}"
    return printable(text)[:MAX_SIGNATURE]


# What differs between two deaths of one cause: who met it, where in memory, when.
_VARYING = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r" in the idle task of CPU \d+| of its idle task", ""),
        (r" (?:in|of) task .{0,64} \(pid \d+\)(?: on CPU \d+)?", ""),
        (r"Task .{0,64} \(pid \d+\)", "A task"),
        (r",? on CPU \d+", ""),
        (r" \(\w+ at address 0x[0-9a-f]+\)", ""),
        (r"\+0x[0-9a-f]+(?:/0x[0-9a-f]+)?", ""),
        (r"\((?:device )?\w*\d\w*\)", "(#)"),
        (r"\bCPUs? \d+(?:, \d+)*", "a CPU"),
        (r"\b(?:0x[0-9a-f]+|\d+(?:\.\d+)?)\b", "#"),
    )
)
