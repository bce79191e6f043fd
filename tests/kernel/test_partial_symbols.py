# SPDX-License-Identifier: GPL-2.0-or-later
"""Variables of real kernels, found as if kallsyms had functions only."""

from collections import defaultdict

import pytest

from kmemdump.formats.symbols import SymbolTable, make_symbols
from kmemdump.kernel.attach import attach
from kmemdump.kernel.kallsyms import KallsymsTables
from kmemdump.opening import open_target
from kmemdump.questions.crash_commands import command
from kmemdump.questions.question import answer
from rigs.dead_machine import DeadMachine
from rigs.scenarios import each_series_once

NAMES = (
    "init_task",
    "init_uts_ns",
    "jiffies",
    "modules",
    "runqueues",
    "task_state_array",
    "prb",
)
QUESTIONS = ("ps", "runq", "bt -a", "bt 1", "mod")


@each_series_once
def test_what_is_found_is_right(
    dead: DeadMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = open_target(f"qmp:{dead.machine.qmp}")
    try:
        whole = attach(target)
        read = KallsymsTables.symbols

        def functions_only(tables: KallsymsTables) -> SymbolTable:
            symbols = read(tables)
            at = {
                name: symbols.find(name, one=True)[0].address
                for name in ("_stext", "_etext", "_sinittext", "_einittext")
            }
            return make_symbols(
                row
                for row in symbols
                if at["_stext"] <= row.address <= at["_etext"]
                or at["_sinittext"] <= row.address <= at["_einittext"]
            )

        monkeypatch.setattr(KallsymsTables, "symbols", functions_only)
        partial = attach(target)
        known, found = whole.own_debug_info.found, partial.own_debug_info.found
        assert known is not None
        assert found is not None
        assert "CONFIG_KALLSYMS_ALL is not set" in found.lacks
        assert partial.own_debug_info.tables == whole.own_debug_info.tables
        for name in NAMES:
            assert found.symbol(name) is not None, name
        count = 0
        addresses = defaultdict(set)
        for row in known.symbols:
            addresses[row.name].add(row.address)
        for row in found.symbols:
            places = addresses[row.name]
            # VMCOREINFO has macros, and the tables of kallsyms, which lists none.
            told = whole.vmcoreinfo.values.get(f"SYMBOL({row.name})", "0")
            if row.name == "__per_cpu_end":
                assert row.address <= min(places)
            else:
                assert row.address in {*places, int(told, 16)}, row
            count += row.info == 0x11
        assert count > 500
        for text in QUESTIONS:
            question = command(text)
            assert answer(partial.prog, question) == answer(whole.prog, question)
    finally:
        target.close()
