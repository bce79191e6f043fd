# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel log says of a panic."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from kmemdump.diagnosis.log_block import CPU_LINE, Block, kernel_records, read_block
from kmemdump.diagnosis.oops_patterns import because, find_oops
from kmemdump.diagnosis.records import Cause, CauseKind
from kmemdump.kernel.printk import LogRecord

__all__ = ["find_panic"]

_BEFORE = 20
"""Lines before a panic that may say its reason."""

_PANIC = re.compile(r"Kernel panic - not syncing: (.*)")
_FATAL = re.compile(r"(?:Oops[^:]*: )?Fatal exception")  # aarch64 says more.


def find_panic(records: Sequence[LogRecord]) -> Cause | None:
    """Find the panic that ended the kernel."""
    own = kernel_records(records)
    for i, record in enumerate(own):
        match = _PANIC.match(record.text)
        if match:
            return _explain_panic(own, i, match[1])
    return None


def _explain_panic(own: Sequence[LogRecord], at: int, why: str) -> Cause:
    block = read_block(own, at)
    if _FATAL.match(why):
        oops = find_oops(own[:at], panic=why)
        if oops is not None:
            return Cause(oops.kind, oops.sentence, (*oops.log, own[at]), cpu=oops.cpu)
    kind = CauseKind.PANIC
    for pattern, known, explain in _PANICS:
        match = pattern.search(why)
        if match:
            kind = known
            before = list(own[max(at - _BEFORE, 0) : at])
            sentence, hints = explain(match, block, before)
            break
    else:
        hints = []
        sentence = f"The kernel panicked{block.in_task}: {why.rstrip('.')}."
    lines = {r.sequence: r for r in (*hints, own[at], *block.key_records())}
    log = tuple(lines[sequence] for sequence in sorted(lines))
    return Cause(kind, sentence, log, cpu=block.cpu)


_Explanation = tuple[str, list[LogRecord]]


def _hints(before: Sequence[LogRecord], pattern: str) -> list[LogRecord]:
    return [record for record in before if re.search(pattern, record.text)]


def _sysrq(m: re.Match[str], block: Block, before: list[LogRecord]) -> _Explanation:
    match = block.search(CPU_LINE)
    named = match is not None and match[2] != "0"
    who = f"Task {match[3]} (pid {match[2]})" if match and named else "Somebody"
    where = f", on CPU {match[1]}" if match else ""
    sentence = f"{who} made the kernel crash on purpose, through sysrq{where}."
    return sentence, _hints(before, "sysrq: ")


# By what an NMI is recognised, its reason, the setting that made it fatal, and a hint;
# after the functions of arch/x86/kernel/nmi.c, each of which has a setting of its own.
_NMIS = (
    ("IOCK", "for an error of an I/O device (IOCK)", "panic_on_io_nmi is set", ""),
    ("PCI system", "for an error on PCI (SERR)", "panic_on_unrecovered_nmi is set", ""),
    (
        "",
        "without a known reason",
        "unknown_nmi_panic is set (or panic_on_unrecovered_nmi)",
        " Most often the host or a watchdog sends one to a machine that seems dead.",
    ),
)


def _nmi(m: re.Match[str], block: Block, before: list[LogRecord]) -> _Explanation:
    hints = _hints(before, "NMI received for unknown|NMI: (IOCK|PCI)")
    said = f"{m.string} {hints[-1].text if hints else ''}"
    _, reason, setting, more = next(item for item in _NMIS if item[0] in said)
    name = "A CPU" if block.cpu is None else f"CPU {block.cpu}"
    sentence = (
        f"{name} got a non-maskable interrupt (NMI) {reason}.{more} {because(setting)}"
    )
    if block.in_function:
        sentence += (
            f" The CPU was just then{block.in_function}{block.of_task}, which need not "
            "be to blame."
        )
    return sentence, hints


def _init(m: re.Match[str], block: Block, before: list[LogRecord]) -> _Explanation:
    code = int(m[1] or "0", 16)
    how = f"signal {code & 0x7F}" if code & 0x7F else f"exit status {code >> 8 & 0xFF}"
    sentence = f"Process 1 (init) ended with {how}, and nothing goes on without it."
    return sentence, _hints(before, r"init\[1\]")


def _soft(m: re.Match[str], block: Block, before: list[LogRecord]) -> _Explanation:
    hints = _hints(before, "soft lockup")
    stuck = re.search(r"CPU#(\d+) stuck for (\w+)", hints[-1].text) if hints else None
    name = f"CPU {stuck[1]} was stuck for {stuck[2]}" if stuck else "A CPU was stuck"
    where = f"{block.in_function}{block.of_task}"
    sentence = f"{name}{where} without letting another task run."
    return f"{sentence} {because('softlockup_panic is set')}", hints


def _hard(m: re.Match[str], block: Block, before: list[LogRecord]) -> _Explanation:
    hints = _hints(before, "hard LOCKUP")
    stuck = re.search(r"on cpu (\d+)", hints[-1].text) if hints else None
    # Another CPU may have noticed, and panicked: kernel/watchdog_buddy.c.
    if stuck and int(stuck[1]) != block.cpu:
        sentence = f"CPU {stuck[1]} was stuck with interrupts off."
    else:
        where = f"{block.in_function}{block.in_task}"
        sentence = f"A CPU was stuck with interrupts off{where}."
    setting = "hardlockup_panic is set (nmi_watchdog=panic)"
    return f"{sentence} {because(setting)}", hints


def _hung(m: re.Match[str], block: Block, before: list[LogRecord]) -> _Explanation:
    hints = _hints(before, "blocked for more than")
    pattern = r"INFO: task (.*):(\d+) blocked for more than (\d+)"
    match = re.search(pattern, hints[-1].text) if hints else None
    who = f"Task {match[1]} (pid {match[2]})" if match else "A task"
    time = f"over {match[3]} s" if match else "too long"
    sentence = f"{who} was blocked for {time}."
    return f"{sentence} {because('hung_task_panic is set')}", hints


def _rcu(m: re.Match[str], block: Block, before: list[LogRecord]) -> _Explanation:
    sentence = f"A CPU or task held up RCU for too long (a stall){block.in_task}."
    hints = _hints(before, "rcu: |detected stall")[:3]
    return f"{sentence} {because('panic_on_rcu_stall is set')}", hints


def _memory(m: re.Match[str], block: Block, before: list[LogRecord]) -> _Explanation:
    end = ", and the kernel panicked."
    if "panic_on_oom" in m.string:
        end = f". {because('panic_on_oom is set')}"
    elif re.search("deadlocked|no killable", m.string):
        end = ", and there was no task left to kill."
    return f"Memory ran out{block.in_task}{end}", _hints(before, "oom|Out of memory")


def _root(m: re.Match[str], block: Block, before: list[LogRecord]) -> _Explanation:
    sentence = f"The kernel could not mount its root file system (on {m[1]})."
    return sentence, _hints(before, "VFS: |Please append")


def _no_init(m: re.Match[str], block: Block, before: list[LogRecord]) -> _Explanation:
    sentence = "The kernel found no program that it could start as init."
    return sentence, _hints(before, "init")


def _stack(m: re.Match[str], block: Block, before: list[LogRecord]) -> _Explanation:
    return f"Something wrote over the kernel's stack in {m[1]}{block.in_task}.", []


def _warn(m: re.Match[str], block: Block, before: list[LogRecord]) -> _Explanation:
    sentence = f"The kernel warned{block.in_function}{block.in_task}."
    hints = _hints(before, "WARNING: ")
    return f"{sentence} {because('panic_on_warn is set')}", hints


def _hardware(m: re.Match[str], block: Block, before: list[LogRecord]) -> _Explanation:
    sentence = f"The processor reported a fatal hardware error{block.in_task}."
    return sentence, _hints(before, "mce:|Hardware Error")


_Explain = Callable[[re.Match[str], Block, list[LogRecord]], _Explanation]

_PANICS: tuple[tuple[re.Pattern[str], CauseKind, _Explain], ...] = tuple(
    (re.compile(pattern), kind, explain)
    for pattern, kind, explain in (
        ("sysrq triggered crash", CauseKind.PANIC, _sysrq),
        ("NMI: Not continuing|NMI IOCK error", CauseKind.NMI, _nmi),
        (
            r"Attempted to kill init!(?: exitcode=(0x[0-9a-f]+))?",
            CauseKind.PANIC,
            _init,
        ),
        ("softlockup: hung tasks", CauseKind.HANG, _soft),
        ("[Hh]ard LOCKUP", CauseKind.HANG, _hard),
        ("hung_task: blocked tasks", CauseKind.HANG, _hung),
        ("RCU Stall", CauseKind.HANG, _rcu),
        ("[Oo]ut of memory|deadlocked on memory", CauseKind.PANIC, _memory),
        (r"VFS: Unable to mount root fs on (\S+)", CauseKind.PANIC, _root),
        ("No working init found|Requested init", CauseKind.PANIC, _no_init),
        (r"stack is corrupted in: (.*)", CauseKind.PANIC, _stack),
        ("panic_on_warn set", CauseKind.PANIC, _warn),
        ("[Mm]achine check|Fatal hardware error", CauseKind.PANIC, _hardware),
    )
)
