# SPDX-License-Identifier: GPL-2.0-or-later
"""The function to blame for an event of a log."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kmemdump.diagnosis.blame import (
    Blame,
    blame_operation,
    blame_outermost,
    blame_recursion,
    blame_stack,
)
from kmemdump.diagnosis.event_block import MAX_TEXT, Trace, traces_of
from kmemdump.diagnosis.event_kind import EventKind
from kmemdump.diagnosis.event_pattern import Place, Weight
from kmemdump.diagnosis.helpers import is_helper
from kmemdump.diagnosis.log_events import Root
from kmemdump.diagnosis.log_line import LogLine
from kmemdump.diagnosis.stack_lines import StackLine, plain_function, read_frame

__all__ = ["EventPlace", "find_place"]

_LAST_FUNCTION = re.compile(r"last function: (?:\[<[^>]{0,40}>\] )?([\w.]{1,200})")
_BECAME_SAFE = re.compile(r"which became \S{1,40}-safe at:[^\n]*$")
_NUMBER = re.compile(r"(?:0x)?[0-9a-f]{8,16}|0x0")
_LOCK_AT = re.compile(r"\bat: (?:\[<[^>]*>\] )?(.{1,300})")
_TRYING = re.compile(
    r"is trying to (?:acquire|release|contend)|takes:|just changed the state|\bat: "
)
_RCU_CPU = re.compile(
    r"^\s*(?:rcu:\s+)?(\d+)-[.O]{0,4}[.oONnX!]{0,4}\S{0,6}: \(|"
    r"on CPUs?/?\w* ?:? ?\{ ?(\d+)|"
    r"self-detected stall on CPU \{ ?(\d+)"
)
_RCU_TASK = re.compile(
    r"Tasks blocked on level.*?: P(\d+)|stalls? on .{0,60}\{.*\bP(\d+)"
)
_CPU_OF_TRACE = re.compile(
    r"NMI backtrace for cpu (\d+)|^CPU: (\d+) |Task dump for CPU (\d+):", re.MULTILINE
)
_TASK_OF_TRACE = re.compile(r"\bpid:\s?(\d+)")
_LAST_RAN = re.compile(r"where RCU GP kthread last ran")
_GP_KTHREAD = re.compile(r"RCU grace-period kthread stack dump")


@dataclass(frozen=True, slots=True)
class EventPlace:
    """Where an event happened."""

    function: str | None = None
    module: str | None = None
    frames: tuple[str, ...] = ()
    place: str = ""
    """As logged, where it was noticed, with its offset."""
    blamed: str = ""
    """As logged, the function to blame, if that is another one."""
    nowhere: bool = False
    """Whether the program counter was in no function."""
    lines: tuple[LogLine, ...] = ()
    cpu: int | None = None
    pid: int | None = None


def find_place(root: Root) -> EventPlace:
    """Return where an event happened, as far as its lines say."""
    traces = list(traces_of(root.block))
    if root.place is Place.NONE:
        return EventPlace()
    if root.place is Place.STUCK:
        return _stuck(root, traces)
    if root.place is Place.LOCK:
        return _lock(root, traces)
    now = [trace for trace in traces if not trace.past] or traces
    # A line that names one place, such as "Preemption disabled at", is no stack.
    now = [t for t in now if t.titled or t.counter or len(t.frames) > 1] or now
    frames: list[StackLine] = []
    lines: list[LogLine] = []
    nowhere = False
    if root.place is Place.HEADER:
        named = root.match.groupdict()
        name = named.get("place") or named.get("place2") or _last_function(root)
        if name and not _NUMBER.fullmatch(name):
            plain = plain_function(name)
            frames.append(StackLine(plain, _full_place(root, name), _module_in(root)))
    with_counter = next((t for t in now if t.counter), None)
    counter = with_counter.counter if with_counter else None
    with_frames = next((t for t in now if t.frames), None)
    if root.place in (Place.COUNTER, Place.HEADER) and counter is not None:
        if counter.name is None:
            nowhere = True
            if with_counter is not None and with_counter.link is not None:
                # What was called made no frame of its own, and the trace begins with
                # the caller of its caller.
                frames.append(with_counter.link)
        elif not frames or frames[0].name != counter.name:
            frames.append(counter)
        else:
            frames[0] = counter
    if with_frames is not None:
        failed = root.weight is Weight.OOPS
        rest = _from_exception(with_frames.frames, frames, failed)
        if root.kind is EventKind.NMI:
            rest = _interrupted_by_nmi(rest)
        frames.extend(rest)
        lines.extend(with_frames.lines[:1])
    for trace in now:
        lines.extend(line for line in trace.lines if _is_counter(line))
    blame = blame_stack(frames, whole=root.weight is Weight.OOPS)
    deep = root.kind in (EventKind.STACK_OVERFLOW, EventKind.STACK_CORRUPTION)
    if deep and frames and not root.match.groupdict().get("place"):
        # Who was called last need not be to blame.
        blame = blame_recursion(frames) or blame_outermost(frames) or blame
    place = _place(blame, frames, nowhere, lines)
    if root.place is Place.STACK and place.blamed:
        return replace(place, place=place.blamed, blamed="")
    return place


def _last_function(root: Root) -> str | None:
    """Return the work that a queue ran last (process_one_work())."""
    for line in root.block.lines[:4]:
        match = _LAST_FUNCTION.search(line.text[:MAX_TEXT])
        if match is not None:
            return match[1]
    return None


def _is_counter(line: LogLine) -> bool:
    return read_frame(line.text[:MAX_TEXT]) is None


def _from_exception(
    frames: Sequence[StackLine], known: Sequence[StackLine], failed: bool
) -> Sequence[StackLine]:
    """
    Return the frames from the one that the exception hit, if it is known.

    :param failed: Whether that one failed, and not a check in it.
    """
    for i, frame in enumerate(frames):
        if frame.after_exception and frame.place:
            return frames[i:]
    if known:
        for i, frame in enumerate(frames[:25]):
            if frame.name != known[-1].name:
                continue
            if not failed or not _is_outer_call(frame, known[-1], frames[:i]):
                return frames[i:]
    return frames


def _is_outer_call(
    frame: StackLine, known: StackLine, inner: Sequence[StackLine]
) -> bool:
    """
    Return whether a frame is an outer call of the function that failed.

    :param inner: The frames before it. Those of the kernel's own report are helpers.
    """
    if frame.place == known.place:
        return False
    return any(not is_helper(it.name) for it in inner if it.name and not it.guess)


def _interrupted_by_nmi(frames: Sequence[StackLine]) -> Sequence[StackLine]:
    """Return the frames from the one that an NMI hit: its RIP is in the handler's."""
    for i, frame in enumerate(frames):
        if frame.after_exception and frame.name is None and i:
            return [frames[i - 1], *frames[i + 1 :]]
    return frames


def _place(
    blame: Blame | None,
    frames: Sequence[StackLine],
    nowhere: bool,
    lines: Sequence[LogLine],
) -> EventPlace:
    if blame is None:
        return EventPlace(nowhere=nowhere, lines=tuple(lines[:2]))
    first = frames[0] if frames[0].name else blame.noticed
    return EventPlace(
        blame.function.name,
        blame.function.module,
        blame.frames,
        first.place,
        "" if blame.function.name == first.name else blame.function.place,
        nowhere,
        tuple(lines[:2]),
    )


def _full_place(root: Root, name: str) -> str:
    match = re.search(
        re.escape(name) + r"\+0x[0-9a-f]+(?:/0x[0-9a-f]+)?(?: \[\w+\])?",
        root.line.text[:MAX_TEXT],
    )
    return match[0] if match else name


def _module_in(root: Root) -> str | None:
    match = re.search(r"\+0x\S+ \[(\w+)", root.line.text[:MAX_TEXT])
    return match[1] if match else None


def _lock(root: Root, traces: Sequence[Trace]) -> EventPlace:
    """Return where the lock was to be taken: lockdep's "at: function"."""
    for trace in traces:
        # Of two contexts that need another order, the one that must not wait.
        if trace.frames and _BECAME_SAFE.search(trace.header):
            return _place(
                blame_stack(trace.frames), trace.frames, False, trace.lines[:1]
            )
    for i, line in enumerate(root.block.lines):
        text = line.text[:MAX_TEXT]
        if i > 40 or not _TRYING.search(text):
            continue
        for candidate in root.block.lines[i : i + 4]:
            match = _LOCK_AT.search(candidate.text[:MAX_TEXT])
            said = match[1].strip() if match else candidate.text[:MAX_TEXT]
            frame = read_frame(said)
            if frame is not None and frame.name:
                return _lock_place(frame, candidate, traces)
        break
    last = [trace for trace in traces if trace.frames]
    frames = last[-1].frames if last else []
    return _place(blame_stack(frames), frames or [], False, [])


def _lock_place(frame: StackLine, line: LogLine, traces: Sequence[Trace]) -> EventPlace:
    last = [trace for trace in traces if trace.frames]
    frames = list(last[-1].frames) if last else []
    names = [item.name for item in frames]
    known = frame.name in names
    frames = frames[names.index(frame.name) :] if known else [frame]
    return _place(blame_stack(frames), frames, False, [line])


def _stuck(root: Root, traces: Sequence[Trace]) -> EventPlace:
    groups = root.match.groupdict()
    cpu = next((int(groups[n]) for n in ("cpu", "cpu2", "cpu3") if groups.get(n)), None)
    pid = int(groups["pid"]) if groups.get("pid") else None
    useful = [trace for trace in traces if trace.frames or trace.counter]
    if root.kind is EventKind.HUNG_TASK:
        trace = useful[0] if useful else None
        if trace is None:
            return EventPlace(pid=pid)
        return _with(
            _place(blame_stack(trace.frames), trace.frames, False, []), None, pid
        )
    if root.kind is EventKind.RCU_STALL:
        cpu, pid = _rcu_culprit(root)
    trace = _trace_of(useful, cpu, pid, root.kind)
    if trace is None:
        return EventPlace(cpu=cpu, pid=pid)
    frames = _after_nmi(trace.frames)
    if trace.counter is not None and trace.counter.name:
        frames = [trace.counter, *frames]
    found = _place(blame_operation(frames), frames, False, trace.lines[:1])
    return _with(found, cpu, pid)


def _after_nmi(frames: list[StackLine]) -> list[StackLine]:
    """Return what ran before the NMI that asked a CPU for its stack."""
    ends = [
        i for i, frame in enumerate(frames) if frame.module == "NMI" and not frame.place
    ]
    return frames[ends[-1] + 1 :] if ends else frames


def _with(place: EventPlace, cpu: int | None, pid: int | None) -> EventPlace:
    return replace(place, cpu=cpu, pid=pid)


def _rcu_culprit(root: Root) -> tuple[int | None, int | None]:
    cpu = pid = None
    for line in root.block.lines[:12]:
        text = line.text[:MAX_TEXT]
        match = _RCU_CPU.search(text)
        if match and cpu is None:
            cpu = int(next(group for group in match.groups() if group))
        match = _RCU_TASK.search(text)
        if match and pid is None:
            pid = int(match[1] or match[2])
    return cpu, pid


def _trace_of(
    traces: Sequence[Trace], cpu: int | None, pid: int | None, kind: EventKind
) -> Trace | None:
    """Return the stack of who does not go on, and not of who noticed it."""
    if pid is not None and kind is EventKind.RCU_STALL:
        for trace in traces:
            match = _TASK_OF_TRACE.search(trace.header)
            if match and int(match[1]) == pid:
                return trace
    if cpu is not None:
        for trace in traces:
            numbers = [
                int(next(g for g in groups if g))
                for groups in _CPU_OF_TRACE.findall(trace.header)
            ]
            if numbers and numbers[-1] == cpu:
                return trace
    if kind is EventKind.RCU_STALL:
        for trace in traces:
            if _LAST_RAN.search(trace.header):
                return trace
        traces = [t for t in traces if not _GP_KTHREAD.search(t.header)] or traces
    return traces[0] if traces else None
