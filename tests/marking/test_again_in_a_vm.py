# SPDX-License-Identifier: GPL-2.0-or-later
"""A look that asks only for what changed marks what a full look marks."""

import random
from collections.abc import Callable

import pytest

from kmemdump.lab import AARCH64, X86_64, Machine
from rigs.looks import Looks

pytestmark = pytest.mark.vm


def check(machine: Machine, rounds: int) -> Looks:
    seed = random.randrange(1 << 32)
    looks = Looks(machine, random.Random(seed))
    try:
        for _ in range(rounds + 1):
            looks.round()
    except AssertionError as error:
        error.add_note(f"after {looks.looks} looks, with seed {seed}")
        raise
    assert looks.full < looks.looks  # Or nothing was tested.
    return looks


def test_looks_at_a_guest_under_load(booted: Callable[..., Machine]) -> None:
    """``make looks`` goes on for an hour."""
    check(booted("6.12"), 5)


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("kernel", "architecture"),
    [("6.1", X86_64), ("newest", X86_64), ("6.12", AARCH64)],
    ids=["6.1", "newest", "aarch64"],
)
def test_other_kernels(
    booted: Callable[..., Machine], kernel: str, architecture: object
) -> None:
    check(booted(kernel, architecture=architecture), 20)
