# SPDX-License-Identifier: GPL-2.0-or-later
"""Symbols out of the kernel's memory, against those of its debug file."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from drgn import Object
from drgn.helpers.linux.module import find_module, module_address_regions

from kmemdump.kernel.attach import Kernel, attach
from kmemdump.opening import open_target
from rigs.dead_machine import DeadMachine
from rigs.scenarios import each_series, each_series_once

NAMES = """
_stext _etext _edata init_task linux_banner schedule vfs_write panic runqueues
prb jiffies_64 __start_BTF mem_section vmcoreinfo_data sys_call_table
""".strip().split()


@pytest.fixture
def kernel(dead: DeadMachine, core_image: Path) -> Iterator[Kernel]:
    # After the core image, since a VM has one QMP client at a time.
    target = open_target(f"qmp:{dead.machine.qmp}")
    yield attach(target)
    target.close()


@each_series
def test_symbols_are_those_of_the_debug_file(
    dead: DeadMachine,
    kernel: Kernel,
    core_image: Path,
) -> None:
    target = open_target(str(core_image))
    expected = attach(target, vmlinux=dead.vmlinux).prog
    try:
        for name in NAMES:
            ours, theirs = kernel.prog.symbol(name), expected.symbol(name)
            assert ours.address == theirs.address, name
            if theirs.size and name != "linux_banner":
                # Up to the next symbol: padding is counted, nothing is cut off.
                assert theirs.size <= ours.size <= theirs.size + 4096, name
        for name in ("schedule", "panic", "vfs_write"):
            address = kernel.prog.symbol(name).address
            assert name in {s.name for s in kernel.prog.symbols(address + 1)}
    finally:
        target.close()


@each_series_once
def test_what_is_not_there(dead: DeadMachine, kernel: Kernel) -> None:
    for wanted in ("nosuch", "", 0, 16, 1 << 63, (1 << 64) - 1):
        with pytest.raises(LookupError):
            kernel.prog.symbol(wanted)
    for name in ("nosuch", "", "a\0b", "struct task_struct"):
        with pytest.raises(LookupError):
            kernel.prog[name]
    with pytest.raises(LookupError):
        kernel.prog.type("struct nosuch")
    # Files are known to debug info only.
    with pytest.raises(LookupError):
        kernel.prog.variable("init_task", "init_task.c")


@each_series_once
def test_symbols_of_modules(dead: DeadMachine, kernel: Kernel) -> None:
    (start, size), *_ = module_address_regions(find_module(kernel.prog, "dummy"))
    found = {
        symbol.name
        for address in range(start, start + size, 64)
        for symbol in kernel.prog.symbols(address)
    }
    assert {name for name in found if name.startswith("dummy_")}


@each_series_once
def test_functions_and_constants(dead: DeadMachine, kernel: Kernel) -> None:
    prog = kernel.prog
    schedule = prog.function("schedule")
    assert schedule.type_.type_name() == "void (void)"
    assert schedule.address_ == prog.symbol("schedule").address
    assert isinstance(prog.constant("PIDTYPE_PID"), Object)
    assert prog.constant("PIDTYPE_PID").value_() == 0
    assert prog.constant("PIDTYPE_TGID").value_() == 1


@each_series_once
def test_bounds(dead: DeadMachine, kernel: Kernel) -> None:
    found = kernel.own_debug_info.found
    assert found is not None
    assert found.start == kernel.prog.symbol("_stext").address
    assert found.start < kernel.prog.symbol("prb").address < found.end
    assert found.per_cpu["runqueues"] > 0
