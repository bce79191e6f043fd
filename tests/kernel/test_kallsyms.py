# SPDX-License-Identifier: GPL-2.0-or-later
"""A real kernel's symbols are those that drgn's own reader of kallsyms finds."""

from drgn.helpers.linux.kallsyms import load_vmlinux_kallsyms

from kmemdump.kernel.attach import attach
from kmemdump.kernel.kallsyms import read_kallsyms_tables
from kmemdump.kernel.program import core_program
from kmemdump.opening import open_target
from rigs.dead_machine import DeadMachine
from rigs.scenarios import each_series_once


@each_series_once
def test_symbols_are_those_of_drgn(dead: DeadMachine) -> None:
    with open_target(f"qmp:{dead.machine.qmp}") as target:
        kernel = attach(target)
        info = kernel.vmcoreinfo
        tables = read_kallsyms_tables(kernel.prog, info)
        # drgn reads a few bytes at a time, half a million times: of a copy.
        segments = [(tables.start, tables.data)]
        prog = core_program(target.machine, info, "kallsyms", segments=segments)
        index = load_vmlinux_kallsyms(prog)
    found = [(it.address, it.name, it.info) for it in tables.symbols()]
    assert len(found) > 50_000
    assert found == [
        (it.address, it.name, (it.binding.value - 1 & 15) << 4 | it.kind.value)
        for it in index(None, None, None, False)
    ]
