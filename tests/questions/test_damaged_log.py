# SPDX-License-Identifier: GPL-2.0-or-later
"""drgn's own reader of the kernel log, in command ``sys``, meets no damaged ring."""

import resource
import struct

import pytest
from drgn import Program
from drgn.helpers.linux.panic import panic_message

from kmemdump.errors import FormatError
from kmemdump.kernel.program import core_program
from kmemdump.questions import tolerant_commands
from kmemdump.vmcoreinfo import VmcoreInfo
from rigs.printk_ring import INFO, RING, Writer
from rigs.synthetic import vmcoreinfo


def kernel(count_bits: int) -> Program:
    """Return a kernel that has a log, and nothing else."""
    writer = Writer(3, 8, True)
    writer.write("one")
    pieces = writer.pieces()
    pieces[RING] = struct.pack("<I", count_bits) + pieces[RING][4:]
    lines = INFO.raw.partition(b"\n")[2]
    info = VmcoreInfo.parse(vmcoreinfo() + lines, "test")
    return core_program(62, info, "the test", segments=list(pieces.items()))


def test_sizes_are_checked_before_numbers_are_made_of_them():
    assert tolerant_commands.TOLERANT_COMMANDS  # It changes drgn's when it is loaded.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FormatError, match=r"2\^1800487597 descriptors"):
        panic_message(kernel(1800487597))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + (50 << 10)


def test_a_good_ring_is_read_by_drgn():
    with pytest.raises(LookupError, match="struct log"):  # It has no types.
        panic_message(kernel(3))
