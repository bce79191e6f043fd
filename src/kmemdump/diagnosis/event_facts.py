# SPDX-License-Identifier: GPL-2.0-or-later
"""What an event's lines say besides its place: CPU, task, time, reason."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from kmemdump.diagnosis.event_block import MAX_TEXT
from kmemdump.diagnosis.event_kind import EventKind as K
from kmemdump.diagnosis.event_place import EventPlace
from kmemdump.diagnosis.log_events import Root

__all__ = ["Facts", "facts_of"]

_MAX_REASON = 160
_STUCK = (K.HUNG_TASK, K.SOFT_LOCKUP, K.HARD_LOCKUP, K.RCU_STALL)
_REASONS: Mapping[K, re.Pattern[str]] = {
    K.LIST: re.compile(r"(list_\w+ (?:double add|corruption)(?:\. |: )?.*)"),
    K.USERCOPY: re.compile(r"usercopy: (?:BUG: )?(.*)|(Bad or missing usercopy.*)"),
    K.FORTIFY: re.compile(
        r"(detected buffer overflow in \w+|\w+: detected buffer overflow.*)"
    ),
    K.CFI: re.compile(r"CFI failure.*?(\(?target: [^;)]{1,200})"),
    K.REFCOUNT: re.compile(r"refcount_t: (.*)"),
    K.OBJECT_DEBUG: re.compile(r"ODEBUG: (.*)"),
    K.KASAN: re.compile(r"^((?:Read|Write) of size \d+)"),
    K.KFENCE: re.compile(
        r"^((?:Out-of-bounds|Use-after-free|Invalid) .{1,80}?)(?: at 0x|:)"
    ),
    K.PROTECTION: re.compile(r"for (non-canonical address 0x[0-9a-f]{1,16})"),
    K.NULL: re.compile(r"KASAN: (?:\w+ )?(null-ptr-deref in range .{1,60})"),
}
_RUST = re.compile(r"rust_kernel: panicked at")
_MACHINE_CHECK = re.compile(r"\[Hardware Error\]: (?:CPU \d+: )?.{1,120}")
_TASK_NAME = re.compile(r"task:(\S{1,64}) +state:.*\bpid:\s?(\d+)")


class _Words(dict[str, object]):
    def __missing__(self, name: str) -> str:
        return "?"


@dataclass(frozen=True, slots=True)
class Facts:
    """What an event's lines say."""

    words: Mapping[str, object]
    """By the names that a rule's words have in braces."""
    cpu: int | None
    task: str | None
    pid: int | None
    time: str | None
    """Seconds for which something was stuck."""
    file: str | None
    reason: str
    """In parentheses, why; empty if nothing says so."""

    @property
    def in_task(self) -> str:
        """In words, the task and the CPU."""
        if self.task is None or self.pid is None:
            return f" on CPU {self.cpu}" if self.cpu is not None else ""
        if self.pid == 0:
            return f" in the idle task of CPU {self.cpu}"
        on = f" on CPU {self.cpu}" if self.cpu is not None else ""
        return f" in task {self.task} (pid {self.pid}){on}"

    @property
    def of_task(self) -> str:
        """In words, the task."""
        if self.task is None:
            return ""
        if self.pid == 0:
            return " of its idle task"
        return f" of task {self.task} (pid {self.pid})"


def facts_of(root: Root, place: EventPlace) -> Facts:
    """Return what an event's lines say."""
    groups = {k: v for k, v in root.match.groupdict().items() if v is not None}
    for name in list(groups):
        groups.setdefault(name.rstrip("0123456789"), groups[name])
    cpu, (task, pid) = root.block.cpu, root.block.task or (None, None)
    if root.kind in _STUCK:
        cpu, task, pid = _stuck(root, place, groups, cpu, task, pid)
    elif "cpu" in groups:
        cpu = int(groups["cpu"])
    words = _Words(groups)
    message = root.panic.message if root.panic else root.match[0]
    words["message"] = message.rstrip(". :")
    words.setdefault("what", root.kind)
    facts = Facts(
        words, cpu, task, pid, groups.get("time"), groups.get("file"), _reason(root)
    )
    words["in_task"] = facts.in_task
    return facts


def _stuck(
    root: Root,
    place: EventPlace,
    groups: Mapping[str, str],
    cpu: int | None,
    task: str | None,
    pid: int | None,
) -> tuple[int | None, str | None, int | None]:
    """Return the CPU and the task that do not go on, and not who noticed it."""
    if place.pid is not None and root.kind in (K.RCU_STALL, K.HUNG_TASK):
        for line in root.block.lines:
            match = _TASK_NAME.search(line.text[:MAX_TEXT])
            if match and int(match[2]) == place.pid:
                return None, match[1], place.pid
        return None, groups.get("task"), place.pid
    if root.kind is K.HUNG_TASK:
        return None, groups.get("task"), None
    if "cpu" in groups:
        other = int(groups["cpu"])
        if groups.get("task"):
            return other, groups["task"], int(groups["pid"])
        return (other, task, pid) if other == cpu else (other, None, None)
    return place.cpu if place.cpu is not None else cpu, task, pid


def _reason(root: Root) -> str:
    if root.kind is K.RUST:
        return _rust(root)
    pattern = _REASONS.get(root.kind)
    if pattern is None:
        return ""
    for line in (*root.reason, root.line, *root.block.lines[:10]):
        match = pattern.search(line.text[:MAX_TEXT])
        if match is not None:
            said = next((group for group in match.groups() if group), "")
            return f" ({said.strip(' .!(')[:_MAX_REASON]})"
    return ""


def _rust(root: Root) -> str:
    """Return what the panic of Rust code said: in its line, or in the next one."""
    lines = [*root.reason, *root.block.lines]
    for i, line in enumerate(lines):
        if _RUST.search(line.text):
            after = [x.text.strip() for x in lines[i + 1 : i + 2]]
            said = line.text.partition("panicked at ")[2]
            return f" ({'; '.join([said.rstrip(':'), *after])[:_MAX_REASON]})"
    return ""
