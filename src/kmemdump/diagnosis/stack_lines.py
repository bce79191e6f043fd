# SPDX-License-Identifier: GPL-2.0-or-later
"""
Lines of stack traces, registers and callers that kernels log, on each architecture.

Forms: ``func+0x1/0x2 [module]`` (dump_trace() of arch/x86/kernel/dumpstack.c, and of
arm64, riscv), ``[<addr>] func+0x1/0x2`` before commit bb5e5ce545f2 ("x86/dumpstack:
Remove kernel text addresses from stack dump") (in v4.10), ``(func) from (caller)``
and ``func from caller`` on 32-bit Arm (arch/arm/kernel/traps.c); arm64 marks where a
frame comes from with a letter since commit c2c6b27b5aa1 ("arm64: stacktrace: unwind
exception boundaries") (in v6.13).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from kmemdump.diagnosis.rust_names import source_name
from kmemdump.kernel.symbol_names import base_name, plain_name

__all__ = [
    "StackLine",
    "plain_function",
    "read_callee",
    "read_counter",
    "read_frame",
    "read_link",
]

_HEX = r"(?:0x)?[0-9a-f]"
_NAME = r"<?[A-Za-z_.$][^\s+()\[\]]{0,255}(?: as [^\s+()\[\]]{1,255})?"
_PLACE = (
    rf"({_NAME})\+(0x[0-9a-f]{{1,8}})(/0x[0-9a-f]{{1,8}})?"
    r"(?: ?\[([\w-]+)[^\]]{0,64}\])?"
)
_ADDRESS = r"(?:\[<[^>]{0,40}>\]|\[[0-9a-f]{8,16}\])"

_FRAME = re.compile(
    rf"^\s{{0,20}}(?:\[[0-9a-f]{{8,16}}\] )?\s*(?:#\d+:?\s+)?(?:{_ADDRESS}\s*)?"
    rf"(\? )?\(?{_PLACE}\)?(?=$|[ \t)])"
)
_ARM_FRAME = re.compile(
    rf"(?:^|\s)\(?({_NAME})\)?(?: \[([\w-]+)\])? from (?:{_ADDRESS} )?\(?{_PLACE}"
)
_COUNTER = re.compile(
    r"^(?:RIP: [0-9a-f]{4}:|RIP  ?(?=\[)|EIP: |E?IP: (?=\[)|\s*epc\s{0,3}: |"
    r"\s*pc\s{0,3}: |"
    r"PC is at |NIP |Krnl PSW : .{0,60}\()"
    rf"\s*((?:{_ADDRESS}\s*){{0,2}})(.*)"
)
_PLACE_AT = re.compile(_PLACE)
_LINK = re.compile(rf"(?:^\s{{0,3}}lr : |\bra : ){_PLACE}")
_USER_COUNTER = re.compile(r"^RIP: (?:0023|0033):|^E?IP: (?:0023|0073):")
_SYSCALL = re.compile(
    r"^(?:__)?(?:x64|ia32|ia32_compat|x32|arm64|arm64_compat|riscv|riscv_compat|s390x?|"
    r"se|do|se_compat|do_compat)_(?:compat_)?sys_(?=\w)|^(?:__)?SyS_(?=\w)|"
    r"^SYSC_(?=\w)|^(?:C_SYSC_|compat_SyS_)(?=\w)"
)
_ARCH_SYSCALL = re.compile(r"^__(?:x64|ia32|arm64|riscv|s390x?|se|do)_sys_(?=\w)")


@dataclass(frozen=True, slots=True)
class StackLine:
    """A function that a line of a log names as a place on a stack."""

    name: str | None
    """As in the source; ``None`` if the place is no function."""
    place: str
    """As logged, with its offset, without the compiler's suffixes that vary."""
    module: str | None = None
    guess: bool = False
    """Whether the unwinder is not sure of it (``?``)."""
    after_exception: bool = False
    """Whether an exception or interrupt hit here."""
    start: bool = False
    """
    Whether its offset is 0; not set for 32-bit Arm, which names each caller in the line
    that follows.
    """
    counter: bool = False
    """Whether a line of registers says so, and not one of a stack trace."""


def plain_function(symbol: str) -> str:
    """Return the function of the source: no suffixes, one name for a system call."""
    if symbol.startswith(("_R", "_Z")):
        return source_name(symbol)
    # Another name of a function that may run before the kernel is in its place.
    symbol = symbol.removeprefix("__pi_")
    name = symbol if symbol.startswith("<") else base_name(symbol)
    if name.startswith(("_", "S", "C", "c")):
        name = _SYSCALL.sub("sys_", name)
    elif name.startswith("ksys_"):
        name = name[1:]
    return name


def _line(match: re.Match[str], first: int, guess: bool, mark: str = "") -> StackLine:
    symbol, offset, size, module = match.group(first, first + 1, first + 2, first + 3)
    place = f"{plain_name(symbol)}+{offset}{size or ''}" + (
        f" [{module}]" if module else ""
    )
    name = plain_function(symbol)
    return StackLine(
        name,
        place,
        module,
        guess,
        after_exception="P" in mark,
        start=int(offset, 16) == 0,
    )


def read_callee(text: str) -> StackLine | None:
    """Return the function that a line of 32-bit Arm names besides its caller."""
    match = _ARM_FRAME.search(text) if " from " in text else None
    if match is None:
        return None
    name = plain_function(match[1])
    return StackLine(name, f"{name} [{match[2]}]" if match[2] else name, match[2])


_NOWHERE = re.compile(rf"{_HEX}{{1,18}}\b|\(null\)|Bad |0x")
_MARK = re.compile(r"\(([CPLFU]{1,3})\)\s*$")


def read_frame(text: str) -> StackLine | None:
    """Return the function that a line of a stack trace names."""
    if "+0x" not in text:
        return None
    if " from " in text:
        match = _ARM_FRAME.search(text)
        if match is not None:
            # The caller; the function itself stands in the line before.
            return replace(_line(match, 3, guess=False), start=False)
    if text.endswith("[inline]"):
        return None
    match = _FRAME.match(text)
    if match is None:
        return None
    mark = _MARK.search(text)
    return _line(match, 2, match[1] is not None, mark[1] if mark else "")


def read_counter(text: str) -> StackLine | None:
    """
    Return where the program counter was, if a line of registers says so.

    A place without a name is one outside of all functions: a bad pointer was called.
    """
    match = _COUNTER.match(text)
    if match is None or _USER_COUNTER.match(text):
        return None
    where = match[2].strip()
    place = _PLACE_AT.search(where)
    if place is not None:
        return replace(_line(place, 1, guess=False), counter=True)
    nowhere = _NOWHERE.match(where) is not None or "(null)" in where
    # Older kernels log the number in a line, and the function in the next one.
    if nowhere and (match[1] or not where.startswith("[")):
        return StackLine(None, where.split()[0], counter=True)
    return None


def read_link(text: str) -> StackLine | None:
    """
    Return what the link register names, if a line of registers says so.

    It has the return address of the last call on arm64 and riscv.
    """
    if "+0x" not in text:
        return None
    match = _LINK.search(text)
    return None if match is None else _line(match, 1, guess=False)
