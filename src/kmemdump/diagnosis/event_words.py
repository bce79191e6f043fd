# SPDX-License-Identifier: GPL-2.0-or-later
"""An event of a log in words, with the lines that prove them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from kmemdump.diagnosis.event_facts import Facts, facts_of
from kmemdump.diagnosis.event_kind import EventKind as K
from kmemdump.diagnosis.event_pattern import Place, Weight
from kmemdump.diagnosis.event_place import EventPlace
from kmemdump.diagnosis.hardware_words import describe_firmware_error, describe_nmi
from kmemdump.diagnosis.log_events import Root
from kmemdump.diagnosis.log_line import LogLine

__all__ = ["Told", "because", "describe"]

_MAX_EVIDENCE = 12
_FAULTS = (K.NULL, K.PAGE_FAULT, K.PROTECTION, K.OOPS, K.BTI, K.EXTERNAL_ABORT)
_OWN_STACK = (K.INT3, K.DOUBLE_FAULT, K.STACK_OVERFLOW)
"""Told on a stack of its own, which the kernel takes for an interrupt's."""
_IN_INTERRUPT = re.compile(
    r"<IRQ>|\b(?:el1h?_(?:64_)?irq|gic_handle_irq|__irq_svc)\+0x"
)
_NAME = re.compile(r"^(?:Internal error: )?Oops")
"""A line of die(), which numbers the oops."""
_ACCESSED = re.compile(r"\b(Read|Write|read|write) (?:of size|at)")


@dataclass(frozen=True, slots=True)
class Told:
    """An event in words."""

    sentence: str
    title: str
    evidence: tuple[LogLine, ...]
    cpu: int | None
    task: str | None
    pid: int | None


def because(setting: str) -> str:
    """Return a sentence that names the setting by which the kernel panicked."""
    return f"The kernel panicked because {setting}."


def describe(root: Root, place: EventPlace) -> Told:
    """Return an event in words."""
    facts = facts_of(root, place)
    special = _SPECIAL.get(root.kind)
    if special is None or (root.weight is not Weight.END and root.kind in _ONLY_PANICS):
        special = _general
    sentence = " ".join(special(root, place, facts).split())
    evidence = {line.number: line for line in _evidence(root, place)}
    return Told(
        sentence,
        _title(root, place, facts),
        tuple(evidence[number] for number in sorted(evidence))[:_MAX_EVIDENCE],
        facts.cpu,
        facts.task,
        facts.pid,
    )


def _evidence(root: Root, place: EventPlace) -> Iterator[LogLine]:
    yield root.line
    if root.refined_by is not None:
        yield root.refined_by
    yield from root.hints
    if root.weight is Weight.OOPS:
        name = root.block.line_of(_NAME)
        if name is not None:
            yield name
    if root.block.who_line is not None:
        yield root.block.who_line
    yield from place.lines
    if root.panic is not None:
        yield root.panic.line


def _title(root: Root, place: EventPlace, facts: Facts) -> str:
    title = _fill(root.title, facts)
    if root.kind in (K.KASAN, K.KFENCE):
        access = root.block.search(_ACCESSED)
        if access and access[1].title() not in title:
            verb = access[1] if root.kind is K.KFENCE else access[1].title()
            if verb not in title:
                title = f"{title} {verb}"
    if place.function and root.place is not Place.NONE:
        title = f"{title} in {place.function}"
    return title


def _fill(words: str, facts: Facts) -> str:
    return words.format_map(facts.words)


def _where(place: EventPlace) -> str:
    """In words, the function that noticed it, and the one to blame."""
    if not place.place:
        return f" in {place.function}()" if place.function else ""
    if place.blamed:
        return f" in {place.place}, called for {place.blamed}"
    return f" in {place.place}"


def _general(root: Root, place: EventPlace, facts: Facts) -> str:
    words = _fill(root.words, facts)
    access = root.block.access if root.kind in _FAULTS else ""
    if place.nowhere and root.weight is Weight.OOPS:
        pointer = (
            "a NULL function pointer"
            if root.kind is K.NULL
            else "a bad function pointer"
        )
        caller = place.blamed or place.place or (place.function or "")
        by = f" from {caller}" if caller else ""
        return f"The kernel called {pointer}{by}{access}{facts.in_task}. {_end(root)}"
    return f"{words}{facts.reason}{_where(place)}{access}{facts.in_task}. {_end(root)}"


def _end(root: Root) -> str:
    """
    Say what followed an event; see die() and oops_end() in the kernel's arch/.
    """
    panic = root.panic
    if panic is None:
        if root.ended:
            return (
                "The kernel ended there without logging a panic, as it does when it "
                "starts a crash kernel."
            )
        if root.weight is Weight.OOPS:
            return "The task was killed, and the kernel went on."
        return "The kernel went on."
    if root.line is panic.line:
        return ""
    if "in interrupt" in panic.message:
        if root.kind in _OWN_STACK:
            return "That is always fatal."
        if root.block.search(_IN_INTERRUPT):
            return "It was in an interrupt, where that is always fatal."
        return f"The kernel panicked: {panic.message}."
    if panic.rule.kind is K.INIT_DEATH:
        return "It ran in process 1 (init), and nothing goes on without it."
    if panic.rule.setting:
        return because(panic.rule.setting)
    return f"The kernel panicked: {panic.message.rstrip('. ')}."


def _sysrq(root: Root, place: EventPlace, facts: Facts) -> str:
    named = facts.task is not None and facts.pid != 0
    who = f"Task {facts.task} (pid {facts.pid})" if named else "Somebody"
    where = f", on CPU {facts.cpu}" if facts.cpu is not None else ""
    return f"{who} made the kernel crash on purpose, through sysrq{where}."


def _init(root: Root, place: EventPlace, facts: Facts) -> str:
    how = ""
    if root.match["code"]:
        code = int(root.match["code"], 16)
        how = f" with exit status {code >> 8 & 0xFF}"
        if code & 0x7F:
            how = f" with signal {code & 0x7F}"
    return f"Process 1 (init) ended{how}, and nothing goes on without it."


def _memory(root: Root, place: EventPlace, facts: Facts) -> str:
    said = root.match.string
    end = ", and the kernel panicked."
    if "panic_on_oom" in said:
        end = f". {because('panic_on_oom is set')}"
    elif re.search("deadlocked|no killable", said):
        end = ", and there was no task left to kill."
    return f"Memory ran out{facts.in_task}{end}"


def _soft(root: Root, place: EventPlace, facts: Facts) -> str:
    cpu = "A CPU" if facts.cpu is None else f"CPU {facts.cpu}"
    time = f" for {facts.time}s" if facts.time else ""
    return (
        f"{cpu} was stuck{time}{_in_or_of(place, facts)} without letting another "
        f"task run. {_end_of_stall(root, 'softlockup_panic is set')}"
    )


def _in_or_of(place: EventPlace, facts: Facts) -> str:
    """In words, where a CPU was, and in which task."""
    if not place.place:
        return facts.of_task.replace(" of ", " in ", 1)
    comma = "," if place.blamed else ""
    return f"{_where(place)}{comma}{facts.of_task}"


def _hard(root: Root, place: EventPlace, facts: Facts) -> str:
    cpu = "A CPU" if facts.cpu is None else f"CPU {facts.cpu}"
    setting = "hardlockup_panic is set (nmi_watchdog=panic)"
    return (
        f"{cpu} was stuck with interrupts off{_in_or_of(place, facts)}. "
        f"{_end_of_stall(root, setting)}"
    )


def _end_of_stall(root: Root, setting: str) -> str:
    if root.panic is None:
        return "The kernel went on."
    if root.line is root.panic.line or root.panic.rule.kind is root.kind:
        return because(setting)
    return _end(root)


def _hung(root: Root, place: EventPlace, facts: Facts) -> str:
    who = "A task" if facts.task is None else f"Task {facts.task} (pid {facts.pid})"
    time = f"over {facts.time} s" if facts.time else "too long"
    at = f" in {place.function}()" if place.function else ""
    end = _end_of_stall(root, "hung_task_panic is set")
    return f"{who} was blocked for {time}{at}. {end}"


def _rcu(root: Root, place: EventPlace, facts: Facts) -> str:
    who = "A CPU or task"
    if place.pid is not None:
        who = (
            f"Task {facts.task} (pid {place.pid})"
            if facts.task
            else f"Task {place.pid}"
        )
    elif place.cpu is not None:
        who = f"CPU {place.cpu}"
    # A task that waits is in the scheduler, which says nothing.
    where = _where(place) if place.pid is None else ""
    if place.pid is not None and place.function:
        where = f" in {place.function}()"
    return (
        f"{who} held up RCU for too long (a stall){where}. "
        f"{_end_of_stall(root, 'panic_on_rcu_stall is set')}"
    )


def _nmi(root: Root, place: EventPlace, facts: Facts) -> str:
    name = "A CPU" if facts.cpu is None else f"CPU {facts.cpu}"
    reason, setting, more = describe_nmi(root)
    words = f"{name} got a non-maskable interrupt (NMI) {reason}.{more}"
    if setting:
        words += f" {because(setting)}"
    if place.place:
        words += (
            f" The CPU was just then{_in_or_of(place, facts)}, which need not be "
            "to blame."
        )
    return words


def _firmware(root: Root, place: EventPlace, facts: Facts) -> str:
    return f"{describe_firmware_error(root)}. {_end(root)}"


def _hardware(root: Root, place: EventPlace, facts: Facts) -> str:
    if root.panic is None:
        # __print_mce() in arch/x86/kernel/cpu/mce/core.c: "Machine Check Exception",
        # or what a bank held when it was looked at, as after a reset.
        happened = "Exception" in root.line.text
        words = "reported" if happened else "had logged"
        when = "" if happened else ", maybe before the last reset"
        return f"The processor {words} a hardware error{when}. {_end(root)}"
    hint = ""
    if "Not all CPUs" in root.panic.message:
        hint = " (not all CPUs answered the machine check)"
    return f"The processor reported a fatal hardware error{hint}."


def _warning(root: Root, place: EventPlace, facts: Facts) -> str:
    if root.words == "The kernel warned" and facts.file and not place.place:
        words = f"The kernel warned at {facts.file}{facts.reason}{facts.in_task}."
        return f"{words} {_end(root)}"
    return _general(root, place, facts)


def _panic(root: Root, place: EventPlace, facts: Facts) -> str:
    if root.panic is None:
        return _general(root, place, facts)
    message = root.panic.message.rstrip(". :")
    in_task = "" if facts.in_task in message else facts.in_task
    where = _where(place) if place.place and root.place is not Place.NONE else ""
    return f"The kernel panicked{where}{in_task}: {message}."


def _quoted(root: Root, place: EventPlace, facts: Facts) -> str:
    if root.panic is None:
        return _general(root, place, facts)
    words = _fill(root.words, facts).rstrip(". :")
    where = _where(place) if root.place is not Place.NONE else ""
    return f"{words}{where}{facts.in_task}."


def _plain(root: Root, place: EventPlace, facts: Facts) -> str:
    return f"{_fill(root.words, facts)}."


_ONLY_PANICS = (K.OOPS,)
_SPECIAL: Mapping[K, Callable[[Root, EventPlace, Facts], str]] = {
    K.SYSRQ: _sysrq,
    K.INIT_DEATH: _init,
    K.OOM: _memory,
    K.SOFT_LOCKUP: _soft,
    K.HARD_LOCKUP: _hard,
    K.HUNG_TASK: _hung,
    K.RCU_STALL: _rcu,
    K.NMI: _nmi,
    K.FIRMWARE_ERROR: _firmware,
    K.MACHINE_CHECK: _hardware,
    K.WARNING: _warning,
    K.PANIC: _panic,
    K.OOPS: _panic,
    K.FILE_SYSTEM: _quoted,
    K.MEMORY_ERROR: _quoted,
    K.WATCHDOG: _quoted,
    K.PCIE_ERROR: _quoted,
    K.NO_ROOT: _plain,
    K.NO_INIT: _plain,
    K.ENCLAVE: _quoted,
    K.HYPERVISOR: _quoted,
}
