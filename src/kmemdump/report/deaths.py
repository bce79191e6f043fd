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

from kmemdump.kernel.log import LogRecord
from kmemdump.report.records import Cause, CauseKind

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
        oops = find_oops(own[:at], panicked=True)
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


def _sysrq(m: re.Match[str], block: _Block, before: list[LogRecord]) -> _Explanation:
    match = block.search(_CPU)
    named = match is not None and match[2] != "0"
    who = f"Task {match[3]} (pid {match[2]})" if match and named else "Somebody"
    where = f", on CPU {match[1]}" if match else ""
    sentence = f"{who} asked for a crash through sysrq{where}."
    return sentence, _hints(before, "sysrq: ")


def _nmi(m: re.Match[str], block: _Block, before: list[LogRecord]) -> _Explanation:
    name = "A CPU" if block.cpu is None else f"CPU {block.cpu}"
    sentence = (
        f"{name} got a non-maskable interrupt (NMI) without a known reason"
        f"{block.where}{block.what}, and the kernel was set to panic then: most often "
        "the host or a watchdog sends one to a machine that seems dead."
    )
    return sentence, _hints(before, "NMI received for unknown|NMI: (IOCK|PCI)")


def _init(m: re.Match[str], block: _Block, before: list[LogRecord]) -> _Explanation:
    code = int(m[1] or "0", 16)
    how = f"signal {code & 0x7F}" if code & 0x7F else f"exit status {code >> 8 & 0xFF}"
    sentence = f"Process 1 (init) ended with {how}, and nothing goes on without it."
    return sentence, _hints(before, r"init\[1\]")


def _soft(m: re.Match[str], block: _Block, before: list[LogRecord]) -> _Explanation:
    hints = _hints(before, "soft lockup")
    stuck = re.search(r"CPU#(\d+) stuck for (\w+)", hints[-1].text) if hints else None
    name = f"CPU {stuck[1]} was stuck for {stuck[2]}" if stuck else "A CPU was stuck"
    sentence = (
        f"{name}{block.where}{block.what} without letting another task run, and the "
        "kernel was set to panic then."
    )
    return sentence, hints


def _hard(m: re.Match[str], block: _Block, before: list[LogRecord]) -> _Explanation:
    sentence = (
        f"A CPU was stuck with interrupts off{block.where}{block.who}, and the kernel "
        "was set to panic then."
    )
    return sentence, _hints(before, "hard LOCKUP")


def _hung(m: re.Match[str], block: _Block, before: list[LogRecord]) -> _Explanation:
    hints = _hints(before, "blocked for more than")
    pattern = r"INFO: task (.*):(\d+) blocked for more than (\d+)"
    match = re.search(pattern, hints[-1].text) if hints else None
    who = f"Task {match[1]} (pid {match[2]})" if match else "A task"
    time = f"over {match[3]} s" if match else "too long"
    sentence = f"{who} was blocked for {time}, and the kernel was set to panic then."
    return sentence, hints


def _rcu(m: re.Match[str], block: _Block, before: list[LogRecord]) -> _Explanation:
    sentence = (
        f"A CPU or task held up RCU for too long (a stall){block.who}, and the kernel "
        "was set to panic then."
    )
    return sentence, _hints(before, "rcu: |detected stall")[:3]


def _memory(m: re.Match[str], block: _Block, before: list[LogRecord]) -> _Explanation:
    sentence = f"Memory ran out{block.who}, and the kernel panicked."
    return sentence, _hints(before, "oom|Out of memory")


def _root(m: re.Match[str], block: _Block, before: list[LogRecord]) -> _Explanation:
    sentence = f"The kernel could not mount its root file system (on {m[1]})."
    return sentence, _hints(before, "VFS: |Please append")


def _no_init(m: re.Match[str], block: _Block, before: list[LogRecord]) -> _Explanation:
    sentence = "The kernel found no program that it could start as init."
    return sentence, _hints(before, "init")


def _stack(m: re.Match[str], block: _Block, before: list[LogRecord]) -> _Explanation:
    return f"Something wrote over the kernel's stack in {m[1]}{block.who}.", []


def _warn(m: re.Match[str], block: _Block, before: list[LogRecord]) -> _Explanation:
    sentence = f"The kernel warned{block.where}{block.who}, and was set to panic then."
    return sentence, _hints(before, "WARNING: ")


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


def find_oops(records: Sequence[LogRecord], *, panicked: bool = False) -> Cause | None:
    """
    Find the last oops.

    :param panicked: Whether it ended in a panic.
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
    end = "and panicked" if panicked else "killed that task, and went on"
    sentence = f"{words}{block.where}{block.access}{block.who}, {end}."
    lines = {r.sequence: r for r in (own[i], *block.telling())}
    if kind is not CauseKind.NULL or "Oops" not in own[i].text:
        starts = ("Oops: ", "Internal error: Oops")
        oops = next((r for r in block.records if r.text.startswith(starts)), own[i])
        lines[oops.sequence] = oops
    log = tuple(lines[sequence] for sequence in sorted(lines))
    return Cause(kind, sentence, log, cpu=block.cpu)


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
