# SPDX-License-Identifier: GPL-2.0-or-later
"""A short text that is the same for two deaths of one cause."""

from __future__ import annotations

import re

__all__ = ["MAX_SIGNATURE", "make_signature"]

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
