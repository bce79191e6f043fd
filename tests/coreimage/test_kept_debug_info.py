# SPDX-License-Identifier: GPL-2.0-or-later
"""Symbols and types are parsed once for core images of the same kernel, in turn."""

from kmemdump.coreimage.read import read_core
from rigs.small_core import write


def test_the_same_kernel_is_parsed_once(tmp_path):
    paths = [write(tmp_path / name) for name in ("one.core", "two.core")]
    with read_core(paths[0]) as one, read_core(paths[1]) as two:
        assert one.debug_info() is two.debug_info()
        assert [row.name for row in one.debug_info().symbols] == ["_stext"]
