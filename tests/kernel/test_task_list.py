# SPDX-License-Identifier: GPL-2.0-or-later
"""The tree of process ids, which a damaged kernel has in any shape."""

from itertools import count

import pytest

from kmemdump.kernel.task_list import leaves

NODE = 0x10002
"""Lowest address of a node, with the bits that say that it is one."""


def test_in_order():
    tree = {NODE: [8, 0, NODE + 0x1000, 24], NODE + 0x1000: [16, 6, 0]}
    assert list(leaves(NODE, tree.__getitem__)) == [8, 16, 24]
    assert list(leaves(8, tree.__getitem__)) == [8]
    assert list(leaves(0, tree.__getitem__)) == []


def test_a_node_that_is_there_twice():
    """With the next node 64 times in each, there would be 64 to the 10th."""
    last = NODE + 0x9000

    def entries_of(value):
        return [] if value == last else [value + 0x1000] * 64

    with pytest.raises(ValueError, match="a node twice"):
        list(leaves(NODE, entries_of))


def test_a_tree_that_is_too_deep():
    places = count(NODE + 0x1000, 0x1000)
    with pytest.raises(ValueError, match="deeper than 11"):
        list(leaves(NODE, lambda value: [next(places)]))
