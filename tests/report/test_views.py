# SPDX-License-Identifier: GPL-2.0-or-later
"""A report as text and as JSON, with hostile strings in it."""

import io
import json
import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import ValidationError
from rich.console import Console

from kmemdump.diagnosis.records import Cause, CauseKind, Cpu, Frame, Task
from kmemdump.diagnosis.records import __all__ as DIAGNOSED
from kmemdump.kernel.printk import LogRecord
from kmemdump.report.records import (
    AreaMemory,
    BlockedTask,
    Interrupt,
    KernelIdentity,
    Loss,
    MemoryMap,
    MemoryRange,
    MemoryUse,
    Module,
    Taint,
    Times,
)
from kmemdump.report.records import __all__ as REPORTED
from kmemdump.report.report import Report
from kmemdump.report.text import print_report
from rigs.schema import check_schema, validator

EVIL = "\x1b]0;owned\x07\x1b[2J[bold]x[/bold]\u202egnp.exe\x9b31m"
CRASHED = Cpu(
    1,
    online=True,
    idle=False,
    interrupted=True,
    task=Task(116, EVIL),
    ip=0xFFFFFFFF81000033,
    interrupts=False,
    frames=(
        Frame(0xFFFFFFFF81000033, "delay_tsc", 0x33, interrupted=True, stack="task"),
        Frame(0xFFFFFFFFC0000005, "lab_null", 5, EVIL, interrupted=True, stack="task"),
        Frame(0xFFFFFFFF81000100, None, source="kernel/fork.c:7"),
        Frame(0xFFFFFFFF81000100, "small", inline=True),
    ),
)
HALTS = (
    Frame(1, "stop_this_cpu", 2, stack="irq"),
    Frame(2, "default_idle", 2, interrupted=True, stack="task"),
    Frame(3, "do_idle", 2, stack="task"),
)
FULL = Report(
    source="a.core",
    kernel=KernelIdentity("6.1.0", "ab" * 20, "#1 SMP", "x86_64", EVIL, EVIL),
    time=Times(datetime(2026, 4, 1, tzinfo=UTC), 3723.5),
    cause=Cause(
        CauseKind.NULL,
        f"The kernel dereferenced a NULL pointer in task {EVIL}.",
        (LogRecord(3, 10**9, 1, 0, 7, False, f"BUG: {EVIL}\nsecond"),),
        ("one thing", "another"),
        1,
        1,
        advice="think",
    ),
    cpus=(
        CRASHED,
        *(
            Cpu(
                number,
                online=False,
                idle=True,
                interrupted=True,
                task=Task(0, f"swapper/{number}"),
                frames=(*HALTS, Frame(4 + number, f"start_{number}", 2, stack="task")),
            )
            for number in (0, 2, 3)
        ),
        Cpu(4, online=True, idle=False, task=Task(5, "x"), problem="no registers"),
    ),
    blocked=(
        BlockedTask(Task(77, EVIL, "D", 0), (Frame(9, "schedule", 1),)),
        BlockedTask(Task(78, "dd", "D", 0), problem="lost"),
    ),
    tasks=(Task(1, "init", "S", 0), Task(77, EVIL, "D", 0)),
    load=(0.5, 1.0, 2.25),
    memory_map=MemoryMap(
        (MemoryRange(0, 1 << 20),), (AreaMemory("a", 9, (MemoryRange(1, 9),)),)
    ),
    memory=MemoryUse(1 << 30, 1 << 20, 2 << 20, 3 << 20, 4 << 20, 1 << 21, 0),
    modules=(Module(EVIL, 0xFFFFFFFFC0000000, 4096, (Taint("O", "foreign"),)),),
    taints=(Taint("O", "foreign"),),
    interrupts=(Interrupt(0, ("timer", EVIL), 12345),),
    log=tuple(
        LogRecord(i, i * 10**9, 6, 0, 7, False, f"line {i} {EVIL}")
        for i in range(9, 60)
    ),
    log_lost=2,
    log_overwritten=9,
    missing=(Loss("the moon", f"it is not there {EVIL}"),),
)
EMPTY = Report(
    "x", KernelIdentity("6.1.0"), Times(), Cause(CauseKind.UNKNOWN, "Nobody knows.")
)


def text(report, *, terminal=False, width=80, lines=None):
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        force_terminal=terminal,
        color_system=None,
        highlight=False,
    )
    print_report(report, console, lines=lines)
    return out.getvalue()


def test_cause_comes_first():
    lines = text(FULL).splitlines()
    assert lines[0] == "Cause of death"
    assert lines[1].startswith("  The kernel dereferenced a NULL pointer")
    assert lines[4:6] == ["  - another", "  Next: think"]
    alive = Cause(CauseKind.ALIVE, "Well.", fatal=False)
    assert text(replace(FULL, cause=alive)).startswith("State\n")


def test_order():
    page = text(FULL)
    order = (
        "Cause of death\n",
        "\nCPU 1, task",
        "\nHost:",
        "\nKernel:",
        "\nCPUs 0, 2, 3",
        "\nCPU 4, task x (pid 5)\n",
        "\nBlocked tasks",
        "\nInterrupts",
        "\nKernel log",
        "\nMissing in this report",
    )
    places = [page.index(part) for part in order]
    assert places == sorted(places)


@pytest.mark.parametrize("terminal", [False, True])
def test_the_frame_where_it_happened_is_marked(terminal):
    page = text(FULL, terminal=terminal, width=200)
    page = re.sub(r"\x1b\[\d*m", "", page)
    assert "\n-> #1  lab_null+0x5 [" in page
    assert page.count("->") == 1
    assert "\n   #0  delay_tsc+0x33\n       ^ exception or interrupt, which" in page


def test_a_suspect_is_no_culprit():
    unproven = Cause(CauseKind.UNKNOWN, "It may hang.", cpu=1, fatal=False)
    page = text(replace(FULL, cause=unproven))
    assert page.startswith("State\n")
    assert "(pid 116), suspected, interrupts off\n" in page
    assert "where it happened" not in page


def test_idle_or_interrupted():
    stopped = replace(FULL.cpus[1], number=7)
    # It was in a timer interrupt when the panic's came.
    irq = (Frame(1, "stop_this_cpu", 2), Frame(5, "spin_lock", 1, interrupted=True))
    busy = replace(stopped, number=8, frames=(*irq, *HALTS[1:]))
    awake = replace(stopped, number=9, online=True)
    page = text(replace(FULL, cpus=(CRASHED, stopped, busy, awake)))
    assert "\nCPU 7, idle, then stopped by the panic\n" in page
    assert "\nCPU 8, its idle task, interrupted, then stopped by the panic\n" in page
    assert "\nCPU 9, its idle task, interrupted\n" in page
    assert "CPUs:         4, 1 of them idle\n" in page


def test_whose_clock():
    captured = datetime(2026, 4, 1, 0, 1, tzinfo=UTC)
    time = replace(FULL.time, captured=captured, marked=captured)
    words = " ".join(text(replace(FULL, time=time)).split())
    assert "Died: 1 h 2 min 3 s after boot, 2026-04-01 00:00:00 UTC by its own" in words
    assert (
        "Captured: 2026-04-01 00:01:00 UTC (marked 00:01:00) by the clock of the "
        "machine that captured it" in words
    )
    # An oops alone does not stop the clock.
    oops = replace(FULL.cause, fatal=False)
    assert "Last tick:" in text(replace(FULL, cause=oops))


def test_text_tells_everything():
    page = text(FULL)
    for words in (
        "[    1.000000] BUG: ",
        "[    1.000000] second",
        "- another",
        "Died:         1 h 2 min 3 s after boot, 2026-04-01 00:00:00 UTC by its own",
        "CPUs:         5, 3 of them idle",
        "Load:         0.50 1.00 2.25",
        "1 sleeping, 1 blocked",
        "1.0 GiB total, 1 MiB free, 3 MiB of files, 2 MiB anonymous,",
        "2 MiB swap, full",
        "foreign (O)",
        "CPUs 0, 2, 3, idle, then stopped by the panic",
        "no stack: no registers",
        "^ interrupt, which came here:",
        "#2  0xffffffff81000100  kernel/fork.c:7",
        "small (inlined)",
        "Blocked tasks (2 in state D)",
        "no stack: lost",
        "12,345  timer",
        "Kernel log (the last 30 of 51 records, 9 older ones were overwritten, 2 were",
        "- the moon: it is not there",
    ):
        assert words in page, words
    assert "start_0" not in page  # Below the idle loop, and the same for all.
    assert "line 29 " not in page
    assert "line 30 " in page


def test_lines():
    assert "Kernel log" not in text(FULL, lines=0)
    assert "(all 51 records," in text(FULL, lines=99)
    assert "(the last 5 of 51 records," in text(FULL, lines=5)


def test_what_led_to_the_death_is_shown():
    told = replace(FULL.cause, log=FULL.log[15:16])
    page = text(replace(FULL, cause=told))
    assert "Kernel log (the last 46 of 51 records," in page
    long = [replace(FULL.log[-1], sequence=100 + i, text="late") for i in range(99)]
    page = text(replace(FULL, cause=told, log=(*FULL.log, *long)))
    assert "Kernel log (100 of 150 records, 45 later ones are left out, 9 older" in page


def test_nothing_known():
    page = text(EMPTY)
    assert page.splitlines()[1] == "  Nobody knows."
    assert "None" not in page


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("terminal", [False, True])
def test_hostile_strings_stay_text(terminal, width):
    page = text(FULL, terminal=terminal, width=width)
    # The headings' own bold, on a terminal.
    page = page.replace("\x1b[1m", "").replace("\x1b[1;31m", "")
    page = page.replace("\x1b[31m", "").replace("\x1b[2m", "").replace("\x1b[0m", "")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", page)
    if width == 200:
        assert r"\x1b]0;owned\x07\x1b[2J[bold]x[/bold]\u202egnp.exe\x9b31m" in page


def test_narrow_terminal_is_not_overrun():
    page = text(FULL, terminal=True, width=40)
    ours = [line for line in page.splitlines() if not line.startswith("CPU")]
    assert max(len(line) for line in ours if "Kernel log" not in line) <= 40


def test_piped_lines_are_whole():
    long = LogRecord(60, 0, 6, 0, 7, False, "x" * 300)
    assert "x" * 300 in text(replace(FULL, log=(long,)))


@given(st.text(), st.booleans(), st.integers(20, 100))
def test_any_text_is_printed(words, terminal, width):
    cause = Cause(CauseKind.PANIC, words, evidence=(words,))
    page = text(replace(EMPTY, cause=cause), terminal=terminal, width=width)
    assert "Cause of death" in page


def test_json():
    plain = json.loads(json.dumps(FULL.to_json()))
    assert plain["version"] == 1
    assert plain["cause"]["kind"] == "null dereference"
    assert plain["cpus"][0]["ip"] == "0xffffffff81000033"
    assert plain["cpus"][0]["frames"][1]["pc"] == "0xffffffffc0000005"
    assert plain["cpus"][0]["task"]["comm"] == EVIL
    assert plain["modules"][0]["address"] == "0xffffffffc0000000"
    assert plain["time"] == {"date": "2026-04-01T00:00:00+00:00", "uptime": 3723.5}
    assert len(plain["log"]) == 51
    assert plain["missing"][0]["what"] == "the moon"


@pytest.mark.parametrize("report", [FULL, EMPTY])
def test_json_is_as_documented(report):
    check_schema(json.loads(json.dumps(report.to_json())))


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"source": None},
        {"cause": {"kind": "panic"}},
        {"surprise": 1},
        {"load": [1, 2]},
    ],
)
def test_other_json_is_not(change):
    with pytest.raises(ValidationError):
        check_schema({**FULL.to_json(), **change})


def test_every_record_is_documented():
    """Also those that no test above has."""
    documented = validator("report/report.schema.json").schema["$defs"].keys() | {
        "Findings"
    }
    records = {"LogRecord", "Signature", *REPORTED, *DIAGNOSED} - {
        "ADDRESS",
        "CauseKind",
    }
    assert documented == records


def test_json_leaves_out_what_is_not_known():
    plain = EMPTY.to_json()
    assert plain["cause"] == {
        "kind": "unknown",
        "sentence": "Nobody knows.",
        "log": [],
        "evidence": [],
        "fatal": True,
    }
    assert "memory" not in plain
    assert plain["time"] == {}


def test_a_report_prints_itself():
    text = io.StringIO()
    print_report(FULL, Console(file=text, width=100, highlight=False))
    assert str(FULL) == FULL.to_text() == text.getvalue()
    assert "\x1b" not in str(FULL)
