# SPDX-License-Identifier: GPL-2.0-or-later
"""What tells one death from another."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest

from kmemdump.diagnosis.death_kind import DeathKind
from kmemdump.diagnosis.signature import SIGNATURE_VERSION
from kmemdump.errors import FormatError
from kmemdump.kernel.printk import Log, LogRecord
from kmemdump.watch.death import facts as module
from kmemdump.watch.death.facts import read_facts
from kmemdump.watch.end_causes import DumpCause

BOOT = ["Linux version 6.1", "Run /init as init process"]
OOPS = [
    "BUG: kernel NULL pointer dereference, address: 0000000000000008",
    "CPU: 1 PID: 77 Comm: sh Not tainted 6.1.0",
    "RIP: 0010:f+0x1/0x20 [m]",
    "---[ end trace 0000000000000000 ]---",
]
PANIC = [
    "Kernel panic - not syncing: something is wrong",
    "CPU: 0 PID: 1 Comm: init Not tainted 6.1.0",
    "---[ end Kernel panic - not syncing: something is wrong ]---",
]


def log(*lines, start=0, jitter=0):
    return [
        LogRecord(start + i, 1_000_000_000 + 1000 * i + jitter, 4, 0, 1, False, line)
        for i, line in enumerate(lines)
    ]


class Kernel:
    """Stands for `VmMarks`."""

    def __init__(self, monkeypatch):
        self.records = log(*BOOT)
        self.same = True
        self.counters = {0: b"00", 1: b"11"}
        self.info = SimpleNamespace(
            osrelease="6.1", build_id="ab", values={"KERNELOFFSET": "1000"}
        )
        self.target = SimpleNamespace(memory=SimpleNamespace(read=None))
        self.progress = SimpleNamespace(cpus=self._cpus)
        arch = SimpleNamespace(page_table=lambda info: None)
        monkeypatch.setattr(module, "arch_from_info", lambda info: arch)
        monkeypatch.setattr(module, "read_log", self._read_log)

    def read_kernel(self):
        return SimpleNamespace(same=self.same)

    def _cpus(self, memory):
        return {
            cpu: SimpleNamespace(counters=value) for cpu, value in self.counters.items()
        }

    def _read_log(self, read, info):
        if isinstance(self.records, Exception):
            raise self.records
        return Log(self.records, 0)

    def facts(self, kind=DeathKind.PANIC, cpus=(), cause="it is so"):
        return read_facts(self, DumpCause(kind, cause, 0.0, cpus=cpus))


@pytest.fixture
def kernel(monkeypatch):
    return Kernel(monkeypatch)


def test_panic(kernel):
    kernel.records = log(*BOOT, *PANIC)
    first = kernel.facts()
    assert first.words == "The kernel panicked in task init (pid 1) on CPU 0: " + (
        "something is wrong"
    )
    assert first.signature == "panic: something is wrong"
    assert first.signature_fields == {
        "signature": first.signature,
        "signature_version": SIGNATURE_VERSION,
        "signature_source": "log",
    }
    assert len(first.id) == 32
    # What was logged after it, and how it was noticed, make no other death.
    kernel.records = log(*BOOT, *PANIC, "Rebooting in 10 seconds..")
    assert kernel.facts().id == first.id
    assert kernel.facts(DeathKind.RESET).id == first.id
    assert kernel.facts(DeathKind.OOPS).id != first.id


def test_a_caller_that_the_log_does_not_name(kernel, monkeypatch):
    """The event has the signature that the report of the core image has."""
    trace = [" panic+0x68/0x70", " next_one+0x0/0x20 [m]", " die_store+0x4/0x20 [m]"]
    kernel.records = log(*BOOT, PANIC[0], "Call trace:", *trace)
    assert kernel.facts().signature == "panic in die_store"  # There is no memory.
    dead = SimpleNamespace(prog=None, recorder=None)
    monkeypatch.setattr(module, "_dead_kernel", lambda marks: nullcontext(dead))
    sections = SimpleNamespace(find=lambda what, find, otherwise: find())
    monkeypatch.setattr(module, "Sections", lambda *_: sections)
    found = {("next_one", "m"): "gives_up+0x8/0x8 [m]"}
    monkeypatch.setattr(
        module,
        "find_code_before",
        lambda prog, starts: {it: found[it] for it in starts},
    )
    first = kernel.facts()
    assert first.signature == "panic in gives_up"
    assert "gives_up+0x8/0x8" in first.words


def test_the_same_panic_of_another_boot(kernel):
    kernel.records = log(*BOOT, *PANIC)
    first = kernel.facts()
    kernel.records = log(*BOOT, *PANIC, jitter=1)
    second = kernel.facts()
    kernel.records = log(*BOOT, *PANIC)
    kernel.info.values["KERNELOFFSET"] = "2000"
    third = kernel.facts()
    assert len({first.id, second.id, third.id}) == 3
    assert first.signature == second.signature == third.signature


def test_a_ring_that_wrapped_meanwhile(kernel):
    records = log(*BOOT, *(f"line {i}" for i in range(100)), *PANIC)
    kernel.records = records
    first = kernel.facts()
    kernel.records = [*records[50:], replace(records[-1], sequence=999)]
    assert kernel.facts().id == first.id


def test_an_old_oops_is_not_the_death(kernel):
    kernel.records = log(*BOOT, *OOPS)
    oops = kernel.facts(DeathKind.OOPS)
    assert "NULL pointer in f+0x1/0x20 [m]" in oops.words
    hang = kernel.facts(DeathKind.HANG, cause="frozen: CPU 1 served no interrupt")
    assert hang.words == ""
    assert hang.signature == "hang: frozen: a CPU served no interrupt"
    assert hang.id != oops.id
    kernel.records = log(*BOOT, *OOPS, *OOPS)
    assert kernel.facts(DeathKind.OOPS).id != oops.id


def test_a_hang_lasts_as_long_as_its_counters_stand_still(kernel):
    first = kernel.facts(DeathKind.HANG, cpus=(1,))
    kernel.counters[0] = b"99"
    kernel.records = log(*BOOT, "rcu: INFO: rcu_sched self-detected stall on CPU")
    assert kernel.facts(DeathKind.HANG, cpus=(1,)).id == first.id
    kernel.counters[1] = b"12"
    assert kernel.facts(DeathKind.HANG, cpus=(1,)).id != first.id
    kernel.counters = {}  # Not known: then the log tells.
    assert kernel.facts(DeathKind.HANG, cpus=(1,)).id != ""


@pytest.mark.parametrize("kind", [DeathKind.QEMU_ENDED, DeathKind.VANISHED])
def test_what_happens_once_has_no_id(kernel, kind):
    assert kernel.facts(kind).id == ""


@pytest.mark.parametrize(
    "problem", [FormatError("log", "damaged"), ZeroDivisionError(), MemoryError()]
)
def test_a_log_that_cannot_be_read(kernel, problem):
    kernel.records = problem
    found = kernel.facts()
    assert (found.id, found.words) == ("", "")
    assert found.signature == "panic: it is so"


def test_what_is_in_memory_is_not_this_kernel(kernel):
    kernel.records = log(*BOOT, *PANIC)
    kernel.same = False
    assert kernel.facts(DeathKind.RESET).id == ""


def test_hostile_words(kernel):
    text = "Kernel panic - not syncing: \x1b[2J" + "x" * 5000
    kernel.records = log(*BOOT, text)
    found = kernel.facts()
    assert found.words.isprintable()
    assert len(found.words) <= 201
    assert len(found.signature) <= 200
