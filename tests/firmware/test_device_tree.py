# SPDX-License-Identifier: GPL-2.0-or-later
"""SMEM is where the machine's device tree says."""

from pathlib import Path

import pytest

from kmemdump.errors import FormatError, TargetError
from kmemdump.firmware.device_tree import read_tree, trees_in
from kmemdump.firmware.smem_search import find_smem
from rigs.machine import SMEM, FakeMachine
from rigs.writers.fdt import cells, write_fdt

TREE_AT = 0x80300000


def tree(address: int = SMEM.start, size: int = SMEM.size) -> bytes:
    node = {"compatible": b"qcom,smem\0", "reg": cells(0, address, 0, size)}
    reserved = {"#address-cells": cells(2), "#size-cells": cells(2), "smem@0": node}
    return write_fdt({"reserved-memory": reserved})


def version_11(machine: FakeMachine) -> None:
    """Make SMEM of a version that has no mark that it could be found by."""
    machine.put(SMEM.start + 0x5C, (11 << 16).to_bytes(4, "little"))
    machine.put(SMEM.end - 4096, bytes(4096))


def test_smem_that_only_the_tree_tells_of() -> None:
    machine = FakeMachine()
    version_11(machine)
    with pytest.raises(TargetError, match="no SMEM of version 12"):
        find_smem(machine)
    machine.put(TREE_AT, tree())
    assert find_smem(machine) == SMEM


def test_the_tree_decides_between_two() -> None:
    machine = FakeMachine()
    second = SMEM.start + 0x100000
    machine.put(second, machine.read(SMEM.start, SMEM.size))
    with pytest.raises(FormatError, match="2 SMEM regions"):
        find_smem(machine)
    machine.put(TREE_AT, tree(second))
    assert find_smem(machine).start == second


@pytest.mark.parametrize("address", [SMEM.start + 4096, 0x1000])
def test_a_tree_of_another_machine(address: int) -> None:
    machine = FakeMachine()
    machine.put(TREE_AT, tree(address))
    assert find_smem(machine) == SMEM


def test_what_only_starts_like_a_tree() -> None:
    machine = FakeMachine()
    machine.put(TREE_AT - 0x1000, b"\xd0\x0d\xfe\xed" + bytes(100))
    machine.put(TREE_AT, tree()[:100])
    machine.put(TREE_AT + 0x1004, tree())  # Where no boot loader puts one.
    machine.put(TREE_AT + 0x2000, tree())
    assert len(list(trees_in(machine, "machine"))) == 1


def test_a_tree_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "board.dtb"
    with pytest.raises(TargetError, match="No such file"):
        read_tree(path)
    path.write_bytes(b"#!/bin/sh\n")
    with pytest.raises(FormatError, match="expected a flattened device tree"):
        read_tree(path)
    path.write_bytes(tree())
    assert read_tree(path).child("reserved-memory") is not None
