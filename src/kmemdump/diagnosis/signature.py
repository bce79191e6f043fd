# SPDX-License-Identifier: GPL-2.0-or-later
"""A short text that is the same for two deaths of one cause."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["MAX_SIGNATURE", "Signature", "SignatureSource", "make_signature"]

SIGNATURE_VERSION = 1
"""Signatures of two versions cannot be compared."""
_MAX_FRAMES = 3


class SignatureSource(StrEnum):
    """What a signature was made from."""

    LOG = "log"
    STACKS = "stacks"
    """The registers and stacks in a core image."""


@dataclass(frozen=True, slots=True)
class Signature:
    """A short text that is the same for two deaths of one bug."""

    text: str
    """At most :data:`MAX_SIGNATURE` characters."""
    version: int
    source: SignatureSource

    @classmethod
    def of_log(
        cls, kind: str, function: str | None, frames: Sequence[str]
    ) -> Signature:
        """Return the signature of what a log says."""
        return cls(_compose(kind, function, frames), SIGNATURE_VERSION, _LOG)

    @classmethod
    def of_stacks(
        cls, kind: str, function: str | None, frames: Sequence[str]
    ) -> Signature:
        """Return the signature of what the stacks show."""
        return cls(_compose(kind, function, frames), SIGNATURE_VERSION, _STACKS)


_LOG, _STACKS = SignatureSource.LOG, SignatureSource.STACKS


def _compose(kind: str, function: str | None, frames: Sequence[str]) -> str:
    where = f" in {function}" if function else ""
    callers = [name for name in frames if name != function][:_MAX_FRAMES]
    return f"{kind}{where}{''.join(f' < {name}' for name in callers)}"[:MAX_SIGNATURE]


MAX_SIGNATURE = 200
"""In characters."""

# What differs between two deaths of one cause: who met it, where in memory, when.
_VARYING = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r" in the idle task of CPU \d+| of its idle task", ""),
        (r" (?:in|of) task .{0,60} \(pid \d+\)(?: on CPU \d+)?", ""),
        (r"Task .{0,60} \(pid \d+\)", "A task"),
        (r",? on CPU \d+", ""),
        (r" \(\w+ at address 0x[0-9a-f]+\)", ""),
        (r"\+0x[0-9a-f]+(?:/0x[0-9a-f]+)?", ""),
        (r"\bCPUs? \d+(?:, \d+)*", "a CPU"),
        (r"\b(?:0x[0-9a-f]+|\d+(?:\.\d+)?)\b", "#"),
    )
)


def make_signature(kind: str, sentence: str) -> str:
    """
    Return the signature of a death.

    :param kind: In one word.
    :param sentence: Why the kernel died.
    """
    for pattern, replacement in _VARYING:
        sentence = pattern.sub(replacement, sentence)
    return f"{kind}: {sentence}"[:MAX_SIGNATURE]
