# SPDX-License-Identifier: GPL-2.0-or-later
"""Patterns in the kernel log of panics."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kmemdump.diagnosis.log_block import CPU_LINE, Block, kernel_records, read_block
from kmemdump.diagnosis.oops_patterns import because, find_oops
from kmemdump.diagnosis.records import Cause, CauseKind
from kmemdump.kernel.printk import LogRecord

__all__ = ["find_panic"]

_BEFORE = 20
"""Number of lines before a panic that may say its reason."""

_PANIC = re.compile(r"Kernel panic - not syncing: (.*)")
_FATAL = re.compile(r"(?:Oops[^:]*: )?Fatal exception")  # aarch64 has the prefix.


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
    kind, hints = CauseKind.PANIC, []
    sentence = f"The kernel panicked{block.in_task}: {why.rstrip('.')}."
    for panic in _PANICS:
        match = re.search(panic.pattern, why)
        if match:
            kind = panic.kind
            if panic.hints:
                before = own[max(at - _BEFORE, 0) : at]
                hints = [r for r in before if re.search(panic.hints, r.text)]
                hints = hints[: panic.most]
            if isinstance(panic.words, str):
                sentence = panic.words.format(match, block=block)
            else:
                sentence = panic.words(match, block, hints)
            if panic.setting:
                sentence = f"{sentence} {because(f'{panic.setting} is set')}"
            break
    lines = {r.sequence: r for r in (*hints, own[at], *block.key_records())}
    log = tuple(lines[sequence] for sequence in sorted(lines))
    return Cause(kind, sentence, log, cpu=block.cpu)


def _sysrq(m: re.Match[str], block: Block, hints: list[LogRecord]) -> str:
    match = block.search(CPU_LINE)
    named = match is not None and match[2] != "0"
    who = f"Task {match[3]} (pid {match[2]})" if match and named else "Somebody"
    where = f", on CPU {match[1]}" if match else ""
    return f"{who} made the kernel crash on purpose, through sysrq{where}."


# Text that identifies an NMI, its reason, the setting that made it fatal, and a hint,
# after the functions of arch/x86/kernel/nmi.c, each of which has its own setting.
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


def _nmi(m: re.Match[str], block: Block, hints: list[LogRecord]) -> str:
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
    return sentence


def _init(m: re.Match[str], block: Block, hints: list[LogRecord]) -> str:
    code = int(m[1] or "0", 16)
    how = f"signal {code & 0x7F}" if code & 0x7F else f"exit status {code >> 8 & 0xFF}"
    return f"Process 1 (init) ended with {how}, and nothing goes on without it."


def _soft(m: re.Match[str], block: Block, hints: list[LogRecord]) -> str:
    stuck = re.search(r"CPU#(\d+) stuck for (\w+)", hints[-1].text) if hints else None
    name = f"CPU {stuck[1]} was stuck for {stuck[2]}" if stuck else "A CPU was stuck"
    where = f"{block.in_function}{block.of_task}"
    return f"{name}{where} without letting another task run."


def _hard(m: re.Match[str], block: Block, hints: list[LogRecord]) -> str:
    stuck = re.search(r"on cpu (\d+)", hints[-1].text) if hints else None
    # Another CPU may have noticed, and panicked: kernel/watchdog_buddy.c.
    if stuck and int(stuck[1]) != block.cpu:
        sentence = f"CPU {stuck[1]} was stuck with interrupts off."
    else:
        where = f"{block.in_function}{block.in_task}"
        sentence = f"A CPU was stuck with interrupts off{where}."
    return f"{sentence} {because('hardlockup_panic is set (nmi_watchdog=panic)')}"


def _hung(m: re.Match[str], block: Block, hints: list[LogRecord]) -> str:
    pattern = r"INFO: task (.*):(\d+) blocked for more than (\d+)"
    match = re.search(pattern, hints[-1].text) if hints else None
    who = f"Task {match[1]} (pid {match[2]})" if match else "A task"
    time = f"over {match[3]} s" if match else "too long"
    return f"{who} was blocked for {time}."


def _memory(m: re.Match[str], block: Block, hints: list[LogRecord]) -> str:
    end = ", and the kernel panicked."
    if "panic_on_oom" in m.string:
        end = f". {because('panic_on_oom is set')}"
    elif re.search("deadlocked|no killable", m.string):
        end = ", and there was no task left to kill."
    return f"Memory ran out{block.in_task}{end}"


class _Panic(NamedTuple):
    pattern: str
    """The kernel's message when it panics."""
    words: str | Callable[[re.Match[str], Block, list[LogRecord]], str]
    """A sentence, or a function that makes one; {0} is the pattern's match."""
    hints: str = ""
    """Pattern of lines before the panic that say more."""
    setting: str = ""
    """The setting by which the kernel panicked."""
    kind: CauseKind = CauseKind.PANIC
    most: int = _BEFORE
    """Most hints that are shown."""


_HANG = CauseKind.HANG
_PANICS = (
    _Panic("sysrq triggered crash", _sysrq, "sysrq: "),
    _Panic(
        "NMI: Not continuing|NMI IOCK error",
        _nmi,
        "NMI received for unknown|NMI: (IOCK|PCI)",
        kind=CauseKind.NMI,
    ),
    _Panic(r"Attempted to kill init!(?: exitcode=(0x[0-9a-f]+))?", _init, r"init\[1\]"),
    _Panic("softlockup: hung tasks", _soft, "soft lockup", "softlockup_panic", _HANG),
    _Panic("[Hh]ard LOCKUP", _hard, "hard LOCKUP", kind=_HANG),
    _Panic(
        "hung_task: blocked tasks", _hung, "blocked for more", "hung_task_panic", _HANG
    ),
    _Panic(
        "RCU Stall",
        "A CPU or task held up RCU for too long (a stall){block.in_task}.",
        "rcu: |detected stall",
        "panic_on_rcu_stall",
        _HANG,
        most=3,
    ),
    _Panic("[Oo]ut of memory|deadlocked on memory", _memory, "oom|Out of memory"),
    _Panic(
        r"VFS: Unable to mount root fs on (\S+)",
        "The kernel could not mount its root file system (on {0[1]}).",
        "VFS: |Please append",
    ),
    _Panic(
        "No working init found|Requested init",
        "The kernel found no program that it could start as init.",
        "init",
    ),
    _Panic(
        "stack is corrupted in: (.*)",
        "Something wrote over the kernel's stack in {0[1]}{block.in_task}.",
    ),
    _Panic(
        "panic_on_warn set",
        "The kernel warned{block.in_function}{block.in_task}.",
        "WARNING: ",
        "panic_on_warn",
    ),
    _Panic(
        "[Mm]achine check|Fatal hardware error",
        "The processor reported a fatal hardware error{block.in_task}.",
        "mce:|Hardware Error",
    ),
)
