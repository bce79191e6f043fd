# SPDX-License-Identifier: GPL-2.0-or-later
"""
What the kernel log says about a death.

Only the kernel's own lines count: whoever writes to /dev/kmsg can write anything,
but not with the kernel's facility (devkmsg_write() in kernel/printk/printk.c).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kmemdump.diagnosis.records import Cause, CauseKind
from kmemdump.kernel.printk import LogRecord

__all__ = ["find_complaints", "find_oops", "find_panic", "find_reboot"]

_LOG_KERN = 0  # Facility of the kernel, include/linux/syslog.h of libc.
_BLOCK = 100
"""Lines that an oops or panic may have."""
_BEFORE = 20
"""Lines before a panic that may tell its reason."""

_PANIC = re.compile(r"Kernel panic - not syncing: (.*)")
_FATAL = re.compile(r"(?:Oops[^:]*: )?Fatal exception")  # aarch64 says more.
_CPU = re.compile(
    r"CPU: (\d+) (?:UID: \d+ )?PID: (\d+) Comm: (.*?) "
    r"(?:Kdump: \w+ )?(?:Not t|T)ainted"
)
_RIP = re.compile(r"(?:RIP: 0010:|pc : )(\S+\+0x\S+(?: \[\w+\])?)")
_ACCESS = re.compile(r"#PF: \w+ (\w+) access in kernel mode|(Write|Read) of size")
_ACCESS_BIT = re.compile(r"\bWnR = ([01])\b")  # aarch64: write, not read.
_ADDRESS = re.compile(r"address:? (?:0x)?([0-9a-f]{8,16})")
_END_TRACE = "---[ end trace"

_OOPSES: tuple[tuple[re.Pattern[str], CauseKind, str], ...] = tuple(
    (re.compile(pattern), kind, words)
    for pattern, kind, words in (
        (
            r"BUG: kernel NULL pointer dereference|"
            r"Unable to handle kernel NULL pointer dereference",
            CauseKind.NULL,
            "The kernel dereferenced a NULL pointer",
        ),
        (
            r"BUG: unable to handle (page fault|kernel paging request)|"
            r"Unable to handle kernel (paging request|access)",
            CauseKind.OOPS,
            "The kernel used a bad pointer",
        ),
        (r"kernel BUG at (\S+)!", CauseKind.OOPS, "The kernel gave up at a BUG()"),
        (
            r"general protection fault",
            CauseKind.OOPS,
            "The kernel used an address that cannot exist",
        ),
        (r"divide error:", CauseKind.OOPS, "The kernel divided by zero"),
        (
            r"BUG: \S+ stack guard page was hit|traps: PANIC: double fault|"
            r"Insufficient stack space to handle exception|kernel stack overflow",
            CauseKind.OOPS,
            "The kernel's stack overflowed",
        ),
        (
            r"Oops(?::| -) |Internal error: |(invalid opcode|stack segment): ",
            CauseKind.OOPS,
            "The kernel hit an exception that it cannot handle",
        ),
    )
)

_COMPLAINTS = re.compile(
    r"watchdog: BUG: soft lockup - |BUG: soft lockup - |[Hh]ard LOCKUP|"
    r"rcu: INFO: .* (self-)?detected stall|INFO: task .* blocked for more than|"
    r"BUG: workqueue lockup|WARNING: .*(CPU|PID): "
)

_REBOOTS = {
    "reboot: Restarting system": "The kernel was told to restart, and did.",
    "reboot: Power down": "The kernel was told to power the machine off, and did.",
    "reboot: System halted": "The kernel was told to halt, and did.",
    "sysrq: Resetting": "Somebody asked for an immediate restart through sysrq.",
}


@dataclass(frozen=True, slots=True)
class _Block:
    """What one context logged from one line on."""

    records: Sequence[LogRecord]

    def search(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        return next((m for r in self.records if (m := pattern.search(r.text))), None)

    @property
    def cpu(self) -> int | None:
        match = self.search(_CPU)
        return int(match[1]) if match else None

    @property
    def what(self) -> str:
        """What the CPU ran."""
        match = self.search(_CPU)
        if match is None:
            return ""
        if match[2] == "0":
            return " of its idle task"
        return f" of task {match[3]} (pid {match[2]})"

    @property
    def who(self) -> str:
        match = self.search(_CPU)
        if match is None:
            return ""
        if match[2] == "0":
            return f" in the idle task of CPU {match[1]}"
        return f" in task {match[3]} (pid {match[2]}) on CPU {match[1]}"

    @property
    def where(self) -> str:
        match = self.search(_RIP)
        return f" in {match[1]}" if match else ""

    @property
    def access(self) -> str:
        address, access = self.search(_ADDRESS), self.search(_ACCESS)
        if address is None:
            return ""
        bit = self.search(_ACCESS_BIT)
        verb = "access"
        if access:
            verb = (access[1] or access[2]).lower()
        elif bit:
            verb = "write" if bit[1] == "1" else "read"
        return f" ({verb} at address {int(address[1], 16):#x})"

    def telling(self) -> tuple[LogRecord, ...]:
        """Return the lines that say what, who and where."""
        wanted = (_CPU, _RIP)
        found = [
            next((r for r in self.records if pattern.search(r.text)), None)
            for pattern in wanted
        ]
        return tuple(record for record in found if record is not None)


def _own(records: Sequence[LogRecord]) -> list[LogRecord]:
    return [record for record in records if record.facility == _LOG_KERN]


def _block(records: Sequence[LogRecord], start: int) -> _Block:
    caller = records[start].caller
    found = []
    for record in records[start : start + 4 * _BLOCK]:
        if record.caller != caller:
            continue  # Another CPU, in between.
        found.append(record)
        if record.text.startswith(_END_TRACE) or len(found) == _BLOCK:
            break
    return _Block(found)


def find_panic(records: Sequence[LogRecord]) -> Cause | None:
    """Find the panic that ended the kernel."""
    own = _own(records)
    for i, record in enumerate(own):
        match = _PANIC.match(record.text)
        if match:
            return _explain_panic(own, i, match[1])
    return None


def _explain_panic(own: Sequence[LogRecord], at: int, why: str) -> Cause:
    block = _block(own, at)
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
        sentence = f"The kernel panicked{block.who}: {why.rstrip('.')}."
    lines = {r.sequence: r for r in (*hints, own[at], *block.telling())}
    log = tuple(lines[sequence] for sequence in sorted(lines))
    return Cause(kind, sentence, log, cpu=block.cpu)


_Explanation = tuple[str, list[LogRecord]]


def _hints(before: Sequence[LogRecord], pattern: str) -> list[LogRecord]:
    return [record for record in before if re.search(pattern, record.text)]


def _because(setting: str) -> str:
    return f"The kernel panicked because {setting}."


def _sysrq(m: re.Match[str], block: _Block, before: list[LogRecord]) -> _Explanation:
    match = block.search(_CPU)
    named = match is not None and match[2] != "0"
    who = f"Task {match[3]} (pid {match[2]})" if match and named else "Somebody"
    where = f", on CPU {match[1]}" if match else ""
    sentence = f"{who} made the kernel crash on purpose, through sysrq{where}."
    return sentence, _hints(before, "sysrq: ")


# What tells an NMI from others, why it came, what made it fatal, and what else there is
# to say: functions of arch/x86/kernel/nmi.c, each of which asks a setting of its own.
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


def _nmi(m: re.Match[str], block: _Block, before: list[LogRecord]) -> _Explanation:
    hints = _hints(before, "NMI received for unknown|NMI: (IOCK|PCI)")
    said = f"{m.string} {hints[-1].text if hints else ''}"
    _, reason, setting, more = next(item for item in _NMIS if item[0] in said)
    name = "A CPU" if block.cpu is None else f"CPU {block.cpu}"
    sentence = (
        f"{name} got a non-maskable interrupt (NMI) {reason}.{more} {_because(setting)}"
    )
    if block.where:
        sentence += (
            f" The CPU was just then{block.where}{block.what}, which need not be to "
            "blame."
        )
    return sentence, hints


def _init(m: re.Match[str], block: _Block, before: list[LogRecord]) -> _Explanation:
    code = int(m[1] or "0", 16)
    how = f"signal {code & 0x7F}" if code & 0x7F else f"exit status {code >> 8 & 0xFF}"
    sentence = f"Process 1 (init) ended with {how}, and nothing goes on without it."
    return sentence, _hints(before, r"init\[1\]")


def _soft(m: re.Match[str], block: _Block, before: list[LogRecord]) -> _Explanation:
    hints = _hints(before, "soft lockup")
    stuck = re.search(r"CPU#(\d+) stuck for (\w+)", hints[-1].text) if hints else None
    name = f"CPU {stuck[1]} was stuck for {stuck[2]}" if stuck else "A CPU was stuck"
    sentence = f"{name}{block.where}{block.what} without letting another task run."
    return f"{sentence} {_because('softlockup_panic is set')}", hints


def _hard(m: re.Match[str], block: _Block, before: list[LogRecord]) -> _Explanation:
    hints = _hints(before, "hard LOCKUP")
    stuck = re.search(r"on cpu (\d+)", hints[-1].text) if hints else None
    # It may be another CPU that noticed, and panicked: kernel/watchdog_buddy.c.
    if stuck and int(stuck[1]) != block.cpu:
        sentence = f"CPU {stuck[1]} was stuck with interrupts off."
    else:
        sentence = f"A CPU was stuck with interrupts off{block.where}{block.who}."
    setting = "hardlockup_panic is set (nmi_watchdog=panic)"
    return f"{sentence} {_because(setting)}", hints


def _hung(m: re.Match[str], block: _Block, before: list[LogRecord]) -> _Explanation:
    hints = _hints(before, "blocked for more than")
    pattern = r"INFO: task (.*):(\d+) blocked for more than (\d+)"
    match = re.search(pattern, hints[-1].text) if hints else None
    who = f"Task {match[1]} (pid {match[2]})" if match else "A task"
    time = f"over {match[3]} s" if match else "too long"
    sentence = f"{who} was blocked for {time}."
    return f"{sentence} {_because('hung_task_panic is set')}", hints


def _rcu(m: re.Match[str], block: _Block, before: list[LogRecord]) -> _Explanation:
    sentence = f"A CPU or task held up RCU for too long (a stall){block.who}."
    hints = _hints(before, "rcu: |detected stall")[:3]
    return f"{sentence} {_because('panic_on_rcu_stall is set')}", hints


def _memory(m: re.Match[str], block: _Block, before: list[LogRecord]) -> _Explanation:
    end = ", and the kernel panicked."
    if "panic_on_oom" in m.string:
        end = f". {_because('panic_on_oom is set')}"
    elif re.search("deadlocked|no killable", m.string):
        end = ", and there was no task left to kill."
    return f"Memory ran out{block.who}{end}", _hints(before, "oom|Out of memory")


def _root(m: re.Match[str], block: _Block, before: list[LogRecord]) -> _Explanation:
    sentence = f"The kernel could not mount its root file system (on {m[1]})."
    return sentence, _hints(before, "VFS: |Please append")


def _no_init(m: re.Match[str], block: _Block, before: list[LogRecord]) -> _Explanation:
    sentence = "The kernel found no program that it could start as init."
    return sentence, _hints(before, "init")


def _stack(m: re.Match[str], block: _Block, before: list[LogRecord]) -> _Explanation:
    return f"Something wrote over the kernel's stack in {m[1]}{block.who}.", []


def _warn(m: re.Match[str], block: _Block, before: list[LogRecord]) -> _Explanation:
    sentence = f"The kernel warned{block.where}{block.who}."
    hints = _hints(before, "WARNING: ")
    return f"{sentence} {_because('panic_on_warn is set')}", hints


def _hardware(m: re.Match[str], block: _Block, before: list[LogRecord]) -> _Explanation:
    sentence = f"The processor reported a fatal hardware error{block.who}."
    return sentence, _hints(before, "mce:|Hardware Error")


_Explain = Callable[[re.Match[str], _Block, list[LogRecord]], _Explanation]

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


def find_oops(
    records: Sequence[LogRecord], *, panic: str | None = None
) -> Cause | None:
    """
    Find the last oops.

    :param panic: What the kernel said when it panicked for this, if it did.
    """
    own = _own(records)
    ends = [-1] + [i for i, r in enumerate(own) if r.text.startswith(_END_TRACE)]
    # An oops has several lines that look like one; the first of the last one counts.
    last = ends[-1]
    if len(ends) > 1 and not any(_oops(record) for record in own[last + 1 :]):
        last = ends[-2]
    for i in range(last + 1, len(own)):
        found = _oops(own[i])
        if found is not None:
            break
    else:
        return None
    kind, words = found
    block = _block(own, i)
    sentence = f"{words}{block.where}{block.access}{block.who}. {_end(panic)}"
    lines = {r.sequence: r for r in (own[i], *block.telling())}
    if kind is not CauseKind.NULL or "Oops" not in own[i].text:
        starts = ("Oops: ", "Internal error: Oops")
        oops = next((r for r in block.records if r.text.startswith(starts)), own[i])
        lines[oops.sequence] = oops
    log = tuple(lines[sequence] for sequence in sorted(lines))
    return Cause(kind, sentence, log, cpu=block.cpu, fatal=panic is not None)


def _end(panic: str | None) -> str:
    """Say what came of an oops: die() and oops_end() in the kernel's arch/."""
    if panic is None:
        return "The task was killed, and the kernel went on."
    if "in interrupt" in panic:
        return "It was in an interrupt, where that is always fatal."
    return _because("panic_on_oops is set (oops=panic)")


def _oops(record: LogRecord) -> tuple[CauseKind, str] | None:
    for pattern, kind, words in _OOPSES:
        match = pattern.match(record.text)
        if match:
            return kind, words
    return None


def find_reboot(records: Sequence[LogRecord]) -> Cause | None:
    """Find an orderly end of the kernel."""
    for record in reversed(_own(records)):
        for start, sentence in _REBOOTS.items():
            if record.text.startswith(start):
                return Cause(CauseKind.REBOOT, sentence, (record,))
    return None


def find_complaints(records: Sequence[LogRecord]) -> tuple[LogRecord, ...]:
    """Find what the kernel complained of without dying of it: the last few lines."""
    found = [record for record in _own(records) if _COMPLAINTS.search(record.text)]
    return tuple(found[-5:])
