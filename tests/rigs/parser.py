# SPDX-License-Identifier: GPL-2.0-or-later
"""A parser of bytes from outside, as tests and fuzzers run it."""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Parser"]


@dataclass(frozen=True)
class Parser:
    """A parser, and everything that is done with its result."""

    name: str
    run: Callable[[bytes], object]
    """Returns or raises FormatError, whatever the bytes are."""
    seeds: tuple[bytes, ...]
    runs: int = 750_000
    """Inputs for the fuzzer; all parsers together have more than 10 million."""

    @property
    def folder(self) -> str:
        """The name of its folder of inputs."""
        return self.name.replace(" ", "-").replace(",", "")
