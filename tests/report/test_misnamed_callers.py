# SPDX-License-Identifier: GPL-2.0-or-later
"""Callers that end with a call, which arm64 logs by the next function."""

import json
import time

import pytest
from drgn import Program, Symbol, SymbolBinding, SymbolKind

from kmemdump.diagnosis.callers import find_starts, name_callers
from kmemdump.diagnosis.cause import find_cause
from kmemdump.diagnosis.observations import Observations
from kmemdump.kernel.code_before import find_code_before
from kmemdump.kernel.printk import LogRecord
from kmemdump.lab import AARCH64
from kmemdump.lab.machine import PANIC_ENDS
from rigs.bugs import ARGUMENTS, build_buggy
from rigs.programs import run_kmemdump

PATIENCE = 240
PANIC = """\
Kernel panic - not syncing: buggy: controller 129 is gone
CPU: 1 UID: 0 PID: 129 Comm: nginx Tainted: G  OE  7.3.4-arm64 #1 PREEMPTLAZY
Call trace:
 show_stack+0x20/0x40 (C)
 vpanic+0x1a0/0x3a0
 panic+0x68/0x70
 buggy_exit+0x0/0x28c [buggy]
 buggy_die+0x74/0xe0 [buggy]
 param_attr_store+0xac/0x110
 module_attr_store+0x2c/0x50
 invoke_syscall+0xa4/0x120"""
CALLERS = {("buggy_exit", "buggy"): "buggy_give_up+0x20/0x20 [buggy]"}


def log(text):
    return [
        LogRecord(number, 5 * 10**9 + number, 6, 0, 1, False, line)
        for number, line in enumerate(text.splitlines())
    ]


def test_a_log_alone():
    """It does not name the caller; the next one is true, the logged one is not."""
    cause = find_cause(Observations(log(PANIC), ()))
    assert (cause.function, cause.functions[0]) == ("buggy_die", "buggy_die")


def test_with_the_callers():
    records = log(PANIC)
    assert find_starts(records) == [*CALLERS]
    cause = find_cause(Observations(records, (), callers=CALLERS))
    assert cause.signature.text == "panic in buggy_give_up"
    assert cause.functions[:2] == ("buggy_give_up", "buggy_die")
    assert "in buggy_give_up+0x20/0x20 [buggy]" in cause.sentence
    # Lines are shown as the kernel logged them.
    assert {*cause.log} <= {*records}


@pytest.mark.parametrize(
    "lines",
    [
        # Interrupted at its first instruction.
        " el1h_64_irq+0x6c/0x70\n poll_device+0x0/0x80\n",
        " poll_device+0x0/0x80 (P)\n",
        # What the unwinder is not sure of, and what no call precedes.
        " panic+0x68/0x70\n ? poll_device+0x0/0x80\n",
        "Call trace:\n poll_device+0x0/0x80\n",
        # Not a start.
        " panic+0x68/0x70\n poll_device+0x4/0x80\n",
    ],
)
def test_what_is_not_misnamed(lines):
    records = log(lines)
    assert find_starts(records) == []
    callers = {("poll_device", None): "other+0x8/0x8"}
    assert name_callers(records, callers) == records


def test_too_many():
    lines = "".join(f" panic+0x1/0x2\n f{number}+0x0/0x2\n" for number in range(5000))
    assert len(find_starts(log(lines))) == 32


def test_the_code_before():
    symbols = [
        Symbol(name, address, size, SymbolBinding.LOCAL, SymbolKind.FUNC)
        for name, address, size in [
            ("gives_up", 0x1000, 0x20),
            ("next_one.isra.0", 0x1020, 0x10),
            ("twin", 0x1030, 0x10),
            ("twin", 0x1040, 0x10),
        ]
    ]

    def find(prog, name, address, one):
        return [
            it
            for it in symbols
            if name in (None, it.name.partition(".")[0])
            and (address is None or 0 <= address - it.address < it.size)
        ]

    prog = Program()
    prog.register_symbol_finder("test", find, enable_index=0)
    starts = [(name, None) for name in ("next_one", "twin", "gives_up", "absent")]
    assert find_code_before(prog, starts) == {
        ("next_one", None): "gives_up+0x20/0x20",
    }


@pytest.mark.vm
@pytest.mark.matrix
@pytest.mark.parametrize(
    ("bug", "signature"),
    [
        ("panic", "panic in buggy_give_up"),
        ("fortify", "fortify in buggy_store_name"),
    ],
)
def test_of_a_module(booted, make_setup, lab_cache, tmp_path, bug, signature):
    fields = {"architecture": AARCH64, "arguments": ARGUMENTS}
    buggy = build_buggy(lab_cache, make_setup("newest", **fields).kernel)
    machine = booted("newest", files=(buggy,), **fields)
    machine.run("echo 1 >/proc/sys/kernel/panic_on_oops")
    machine.run("insmod /files/buggy.ko")
    machine.send(f"echo {bug} >/sys/module/buggy/parameters/die")
    deadline = time.monotonic() + PATIENCE
    while not PANIC_ENDS.search(machine.console) and time.monotonic() < deadline:
        time.sleep(0.2)
    core = tmp_path / "dead.core"
    done = run_kmemdump("capture", f"qmp:{machine.qmp}", "-o", core)
    assert done.returncode == 0, done.stderr
    report = json.loads(run_kmemdump("report", core, "--json").stdout)
    assert report["cause"]["signature"]["text"] == signature
