# SPDX-License-Identifier: GPL-2.0-or-later
"""The map of the memory that was captured."""

import pytest

from kmemdump.memory.ranges import PackedRanges
from kmemdump.report.memory_map import map_memory

pytestmark = pytest.mark.slow


def test_a_dump_in_a_million_pieces():
    """Neighbours are shown as one; what was captured is counted as it is."""
    held = PackedRanges()
    for i in range(1_000_000):
        held.append(i << 13, 4096)
    [area] = map_memory(None, held, ()).areas
    assert len(area.ranges) <= 1 << 16
    assert area.bytes == 1_000_000 * 4096
    assert area.ranges[0].address == 0
    assert area.ranges[-1].address + area.ranges[-1].size == (999_999 << 13) + 4096
