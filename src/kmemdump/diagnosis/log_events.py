# SPDX-License-Identifier: GPL-2.0-or-later
"""Which of the events in a kernel log is the root of the others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

from kmemdump.diagnosis.event_block import MAX_TEXT, EventBlock, read_block
from kmemdump.diagnosis.event_grammar import REFINEMENTS, find_event
from kmemdump.diagnosis.event_kind import EventKind
from kmemdump.diagnosis.event_pattern import EventPattern, Place, Weight
from kmemdump.diagnosis.log_line import LogLine
from kmemdump.diagnosis.panic_grammar import PANIC, PanicRule, find_panic_rule
from kmemdump.diagnosis.stack_lines import read_counter

__all__ = ["Panic", "Root", "find_root"]

_MAX_EVENTS = 500
"""Events of each weight that are looked at: the first ones, and the last one."""
_REASON = 12
"""Lines before an event that may give its reason, from "cut here" on."""
_SAME_EVENT = 40
"""Lines within which a second beginning belongs to the same event."""
_SAME_OOPS = 400
"""The same, where each line says who logged it: most of these are of others."""
_BEGINNING = 8
"""The same, for lines that are also a beginning of their own."""
_CUT_HERE = re.compile(r"-{6,}\[ cut here \]-{6,}|^=={20,}$")
# cper_estatus_print() in drivers/firmware/efi/cper.c.
_SEVERITY = re.compile(r"event severity: (\w{1,20})")
_HARMLESS = ("corrected", "info")
_GENERAL = (EventKind.OOPS, EventKind.BUG, EventKind.INVALID_OPCODE)
_WITH_REASON = (EventKind.BUG, EventKind.WARNING, EventKind.INVALID_OPCODE)
_REASONS = (EventKind.LIST, EventKind.USERCOPY, EventKind.FORTIFY, EventKind.RUST)


@dataclass(frozen=True, slots=True)
class Panic:
    """A panic, and its rule."""

    index: int
    line: LogLine
    message: str
    rule: PanicRule
    match: re.Match[str]
    block: EventBlock


@dataclass(frozen=True, slots=True)
class _Event:
    index: int
    rule: EventPattern
    match: re.Match[str]
    reason: int | None = None
    """Index of the line that gave its reason, if that looks like an event."""


@dataclass(frozen=True, slots=True)
class Root:
    """The event that is the root of the others."""

    kind: EventKind
    words: str
    title: str
    weight: Weight
    place: Place
    match: re.Match[str]
    line: LogLine
    """Where it begins."""
    reason: Sequence[LogLine]
    """Lines before it that say why."""
    block: EventBlock
    panic: Panic | None
    refined_by: LogLine | None = None
    hints: Sequence[LogLine] = ()
    """Other lines that say more."""
    ended: bool = False
    """Whether the kernel ended without a panic in the log."""


def find_root(lines: Sequence[LogLine], *, ended: bool = False) -> Root | None:
    """
    Return the event that is the root of the others; ``None`` if there is none.

    :param ended: Whether the kernel is known to have ended after the last line.
    """
    events, panic = _scan(lines)
    chosen = _choose(lines, events, panic)
    if chosen is None:
        return None if panic is None else _of_panic(lines, panic)
    root = _of_event(lines, events, chosen, panic)
    return replace(root, ended=ended) if panic is None else root


def _scan(lines: Sequence[LogLine]) -> tuple[list[_Event], Panic | None]:
    """Find the beginnings of events up to the panic."""
    events: list[_Event] = []
    counts: Counter[Weight] = Counter()
    for i, line in enumerate(lines):
        text = line.text[:MAX_TEXT]
        match = PANIC.search(text)
        if match is not None:
            rule, found = find_panic_rule(match[1].strip())
            block = read_block(lines, i, len(lines))
            return events, Panic(i, line, match[1].strip(), rule, found, block)
        event = find_event(text)
        if event is not None and not _is_corrected(lines, i, event[0]):
            _add(events, _Event(i, *event))
            weight = event[0].weight
            counts[weight] += 1
            if counts[weight] > _MAX_EVENTS:
                _drop_one_before(events, weight)
    return events, None


def _drop_one_before(events: list[_Event], weight: Weight) -> None:
    """Drop the last event of a weight but one: thousands may repeat themselves."""
    for at in range(len(events) - 2, -1, -1):
        if events[at].rule.weight is weight:
            del events[at]
            return


def _is_corrected(lines: Sequence[LogLine], at: int, rule: EventPattern) -> bool:
    """Return whether it is an error that hurt nothing, which firmware reports, too."""
    if rule.kind is not EventKind.FIRMWARE_ERROR:
        return False
    for line in lines[at + 1 : at + 1 + _BEGINNING]:
        match = _SEVERITY.search(line.text[:MAX_TEXT])
        if match is not None and line.caller == lines[at].caller:
            return match[1] in _HARMLESS
    return False


def _add(events: list[_Event], event: _Event) -> None:
    """Add an event; what only gave its reason is no event of its own."""
    if event.rule.kind in _WITH_REASON and events:
        last = events[-1]
        near = event.index - last.index <= _REASON
        if near and last.rule.kind in _REASONS:
            events[-1] = replace(event, reason=last.index)
            return
    events.append(event)


def _choose(
    lines: Sequence[LogLine], events: Sequence[_Event], panic: Panic | None
) -> _Event | None:
    if panic is not None:
        rule = panic.rule
        for_it = [
            event
            for event in events
            if event.rule.weight in rule.for_weights
            or event.rule.kind in rule.for_kinds
        ]
        if rule.kind is EventKind.INIT_DEATH:
            for_it = [it for it in for_it if _killed_init(lines, it, panic)]
        if for_it and rule.for_weights == frozenset({Weight.OOPS}):
            return _first_cause(events, for_it[0])
        if for_it:
            return _last_group(for_it)
        if rule.kind is not EventKind.PANIC:
            return None
        fatal = (Weight.OOPS, Weight.CORRUPTION)
        before = [event for event in events if event.rule.weight in fatal]
        return before[0] if before else None
    for weights in (
        (Weight.OOPS,),
        (Weight.CORRUPTION, Weight.SPLAT, Weight.STALL, Weight.HARDWARE),
    ):
        found = [event for event in events if event.rule.weight in weights]
        if found:
            return _first_cause(events, found[0])
    return None


def _killed_init(lines: Sequence[LogLine], event: _Event, panic: Panic) -> bool:
    """Return whether an oops was in process 1: others are of any time before."""
    task = read_block(lines, event.index, panic.index).task
    if task is None:
        return panic.index - event.index <= _SAME_EVENT
    return task[1] == 1


def _first_cause(events: Sequence[_Event], event: _Event) -> _Event:
    """Return the first damage to memory before an event, or the event itself."""
    for other in events:
        if other.index >= event.index:
            break
        if other.rule.weight is Weight.CORRUPTION:
            return other
    return event


def _last_group(events: Sequence[_Event]) -> _Event:
    """Return the beginning of the last event: some begin with several lines."""
    last = events[-1]
    for event in reversed(events):
        if (
            last.index - event.index > _SAME_EVENT
            or event.rule.weight is not last.rule.weight
        ):
            break
        last = event
    return last


def _of_event(
    lines: Sequence[LogLine],
    events: Sequence[_Event],
    event: _Event,
    panic: Panic | None,
) -> Root:
    rule, i = event.rule, event.index
    stop = _stop(lines, events, event, panic)
    stuck = rule.place is Place.STUCK
    block = read_block(lines, i, stop, every_caller=stuck)
    if panic is not None and not stuck and panic.index == stop:
        # The stack may stand only where the kernel panicked for it.
        block = EventBlock([*block.lines, *panic.block.lines])
    reason = _reason(lines, i)
    if event.reason is not None:
        own = (x for x in lines[event.reason : i] if x.caller == lines[i].caller)
        known = {line.number for line in reason}
        said = [x for x in islice(own, 2) if x.number not in known]
        reason = [*said, *reason]
    kind, words, title, weight = rule.kind, rule.words, rule.title, rule.weight
    match, line, refined = event.match, lines[i], None
    if kind is EventKind.OOPS:
        # The name of an exception may come a few lines later.
        for other in events:
            follows = i < other.index < min(stop, i + _BEGINNING)
            finer = other.rule.kind not in _GENERAL
            if follows and finer and other.rule.weight is Weight.OOPS:
                kind, words = other.rule.kind, other.rule.words
                title, match = other.rule.title, other.match
                line = lines[other.index]
                break
    near = [*reason, *block.lines[:4], *_counters(block)]
    for item in REFINEMENTS:
        if kind not in item.kinds:
            continue
        for candidate in near:
            if item.pattern.search(candidate.text[:MAX_TEXT]):
                refined = candidate
                kind, words, title = item.kind, item.words, item.title
                if weight is not Weight.OOPS:
                    weight = item.weight or weight
                break
        if refined is not None:
            break
    hints = (
        _reason_lines(reason) if refined is None and kind is not EventKind.KASAN else ()
    )
    return Root(
        kind,
        words,
        title,
        weight,
        rule.place,
        match,
        line,
        reason,
        block,
        panic,
        refined,
        hints,
    )


def _counters(block: EventBlock) -> list[LogLine]:
    return [x for x in block.lines[:40] if read_counter(x.text[:MAX_TEXT]) is not None]


def _stop(
    lines: Sequence[LogLine],
    events: Sequence[_Event],
    event: _Event,
    panic: Panic | None,
) -> int:
    """Return the index of the next event that does not belong to this one."""
    stop = len(lines)
    caller = lines[event.index].caller
    if panic is not None and (not caller or panic.line.caller == caller):
        stop = panic.index
    if event.rule.place is Place.STUCK and panic is not None:
        stop = len(lines)
    for other in events:
        distance = other.index - event.index
        if distance <= 0 or (other.rule.place is Place.NONE and not caller):
            continue
        if caller and lines[other.index].caller != caller:
            continue
        near = _BEGINNING
        if distance < near and other.rule.kind in _REASONS:
            continue
        if other.rule.kind in _GENERAL:
            near = _SAME_OOPS if caller else _SAME_EVENT
        if distance < near and other.rule.weight is event.rule.weight:
            continue
        return min(stop, other.index)
    return stop


def _reason(lines: Sequence[LogLine], at: int) -> list[LogLine]:
    """Return the lines between "cut here" and an event."""
    caller = lines[at].caller
    found: list[LogLine] = []
    cut = False
    for line in reversed(lines[max(at - 4 * _REASON, 0) : at]):
        if caller and line.caller != caller:
            continue
        if cut or len(found) == _REASON:
            found.append(line)
            break
        cut = _CUT_HERE.search(line.text[:MAX_TEXT]) is not None
        if not cut:
            found.append(line)
    if not cut:
        found = found[:1]
    return found[::-1]


def _of_panic(lines: Sequence[LogLine], panic: Panic) -> Root:
    rule = panic.rule
    before = lines[max(panic.index - 60, 0) : panic.index]
    return Root(
        rule.kind,
        rule.words,
        "kernel panic: {message}",
        Weight.END,
        rule.place,
        panic.match,
        panic.line,
        before,
        panic.block,
        panic,
        hints=_hardware_lines([*before, *panic.block.lines[:1]]),
    )


_HARDWARE = re.compile(
    r"Hardware Error\]|NMI received for unknown|NMI: (?:IOCK|PCI)|EDAC|mce: |sysrq: |"
    r"VFS: |"
    r"oom-kill|Out of memory|init\[1\]|softdog|watchdog"
)
_MAX_HINTS = 8


def _hardware_lines(lines: Sequence[LogLine]) -> Sequence[LogLine]:
    """Return the lines before a panic that say more about it."""
    found = [line for line in lines if _HARDWARE.search(line.text[:MAX_TEXT])]
    return found[-_MAX_HINTS:]


def _reason_lines(reason: Sequence[LogLine]) -> Sequence[LogLine]:
    """Return the lines since "cut here": all of them are the reason."""
    return reason[:3] if len(reason) > 1 else ()
