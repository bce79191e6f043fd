# SPDX-License-Identifier: GPL-2.0-or-later
"""Which part of a stack crash needs more than the bytes of."""

from kmemdump.areas.crash_stacks import _used

STACK = range(0x10000, 0x14000)


def test_what_lies_below_the_stack_pointer_is_not_in_use():
    frames = [(1, 0x13F00), (2, 0x13008), (3, 0x20000)]
    assert _used(STACK, frames) == range(0x13008, 0x14000)


def test_a_stack_pointer_that_is_not_aligned():
    assert _used(STACK, [(1, 0x13009)]) == range(0x13008, 0x14000)


def test_a_stack_that_nothing_is_on():
    assert not _used(STACK, [(1, 0x20000)])


def test_all_of_a_stack_may_be_in_use_if_nobody_has_the_registers():
    assert _used(STACK, None) == STACK
