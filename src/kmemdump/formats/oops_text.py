# SPDX-License-Identifier: GPL-2.0-or-later
"""
What the kernel prints of a CPU when it fails: registers, code, stack trace, machine.

The forms are those of ``show_regs()`` in arch/*/kernel/ (x86_64, arm64, riscv, arm),
``show_opcodes()`` in arch/x86/kernel/dumpstack.c, ``dump_kernel_instr()`` in
arch/arm64/kernel/traps.c, ``dump_stack_print_info()`` in lib/dump_stack.c, and of
scripts/decode_stacktrace.sh, which puts file and line in place of offsets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

__all__ = [
    "CodeLine",
    "OopsText",
    "TraceLine",
    "find_hardware",
    "find_release",
    "parse_oops",
]

_MAX_FRAMES = 200
_MAX_CODE = 256
_FUNCTION = (
    r"(?P<function>[\w.$:]{1,512})\+0x(?P<offset>[0-9a-f]{1,8})/0x(?P<size>[0-9a-f]{1,8})"
    r"(?: \[(?P<module>[\w-]{1,64})(?: [0-9a-f]{8,40})?\])?"
)
_DECODED = (
    r"(?P<name>[\w.$]{1,512}) "
    r"\((?P<source>[^()\s]+:\d+(?: \(discriminator \d+\))?|inlined)\)"
    r"(?: \[?(?P<in>[\w-]{1,64})\]?)?"
)
_FRAME = re.compile(
    r"\s*(?:\[<\(?[0-9a-fx]+\)?>\] )?\(?(?P<unsure>\? )?"
    rf"(?:{_FUNCTION}|{_DECODED})\)?(?: \([A-Z]+\))?(?: from .*)?\s*$"
)
_TRACE = re.compile(r"(?:Call Trace|Call trace|Backtrace):")
_STACK = re.compile(r"\s*<(/?)([A-Z#]{2,8}\d?)>")
_PLACE = re.compile(
    r"(?:RIP: (?:[0-9a-f]{4}|e030):|pc : |PC is at |epc : |EIP: )(?:\[<[0-9a-f]+>\] )?"
    + _FUNCTION
)
_USER = re.compile(r"RIP: 0033:|</TASK>\s*$")
_REGISTER = re.compile(
    r"\b(ORIG_RAX|E?R[A-Z0-9]{2}|R[0-9]{2}|EFLAGS|CR[0-9]|[FG]S|pstate|psr|status|badaddr"
    r"|cause|x\d{1,2}|r\d{1,2}|[astr]\d{1,2}|e?pc|lr|sp|ip|fp|ra|gp|tp|E[A-Z]{2})"
    r" ?: ?(?:[0-9a-f]{4}:|\[<)?(?:0x)?([0-9a-f]{8,16})\b"
)
# Possessive: a line that ends in something else would be tried in all its partitions.
_CODE = re.compile(r"Code: ((?:[(<]?[0-9a-f]{2,8}+[)>]?+ ?+)++)$")
_CODE_WORD = re.compile(r"([(<]?)([0-9a-f]{8}|[0-9a-f]{4}|[0-9a-f]{2})[)>]?")
_HARDWARE = re.compile(r"Hardware name: (.*)|DMI: (.*, BIOS .*)")
_BIOS = re.compile(r"(.*?),? BIOS (.*)")
_RELEASE = re.compile(
    r"(?:Not tainted|Tainted: [A-Z ]{2,40}?) {1,3}(\d+\.\d+[\w.+~-]*)"
)
_BANNER = re.compile(r"Linux version (\d+\.\d+[^ ]{0,100})")


@dataclass(frozen=True, slots=True)
class CodeLine:
    """The ``Code:`` line."""

    code: bytes
    """As they stand in memory."""
    failed: int
    """Offset in *code* of the instruction that failed."""


@dataclass(frozen=True, slots=True)
class TraceLine:
    """A line of a stack trace."""

    function: str
    offset: int | None
    size: int | None
    module: str | None
    source: str | None
    reliable: bool
    stack: str | None


@dataclass(frozen=True, slots=True)
class OopsText:
    """What was found."""

    registers: dict[str, int]
    """By the names that the kernel prints."""
    code: CodeLine | None
    trace: tuple[TraceLine, ...]
    """The function that failed first, if the kernel printed it."""
    machine: str | None
    """Architecture as ``uname -m`` prints it, if the registers show it."""


def parse_oops(lines: Sequence[str]) -> OopsText:
    """
    Find registers, code and stack trace in the lines of one oops, panic or warning.

    The registers of a program that called the kernel, which follow the trace, are left
    out.
    """
    registers: dict[str, int] = {}
    code = None
    for line in lines:
        if _USER.match(line):
            break
        for name, value in _REGISTER.findall(line):
            registers.setdefault(name, int(value, 16))
        if code is None and (match := _CODE.search(line)):
            code = _parse_code(match[1])
    trace = tuple(_trace(lines))
    return OopsText(registers, code, trace, _machine(lines, registers))


def _parse_code(text: str) -> CodeLine | None:
    code, failed = bytearray(), None
    for mark, word in _CODE_WORD.findall(text)[:_MAX_CODE]:
        if mark:
            failed = len(code)
        # A word of more than a byte is a number, which stands in memory in reverse.
        code += bytes.fromhex(word)[::-1]
    return None if failed is None else CodeLine(bytes(code), failed)


def _machine(lines: Sequence[str], registers: Iterable[str]) -> str | None:
    names = frozenset(registers)
    for marks, machine in (
        (("RAX", "RSP", "RBX"), "x86_64"),
        (("EAX", "EIP"), "i686"),
        (("x29", "x0", "pstate"), "aarch64"),
        (("ra", "epc", "badaddr"), "riscv64"),
        (("psr", "r0"), "armv7l"),
    ):
        if names & {*marks}:
            return machine
    return None


def _trace(lines: Sequence[str]) -> Iterator[TraceLine]:
    """Yield where it failed, and the first trace after that."""
    stack: str | None = None
    begun = False
    count = 0
    place: re.Match[str] | None = None
    for line in lines:
        if not begun:
            begun = _TRACE.search(line) is not None
            if place is None and (match := _PLACE.search(line)):
                place = match
                yield _entry(match, None)
            continue
        if match := _STACK.match(line):
            stack = None if match[1] or match[2] == "TASK" else match[2].lower()
            continue
        found = _FRAME.match(line)
        if found is None:
            if count and line.strip() and not line.startswith((" ", "\t")):
                return
            continue
        entry = _entry(found, stack)
        if place is not None and not count and entry.function == place["function"]:
            place = None  # The trace begins there, too, on arm64.
            count += 1
            continue
        yield entry
        count += 1
        if count >= _MAX_FRAMES:
            return


def _entry(match: re.Match[str], stack: str | None) -> TraceLine:
    found = match.groupdict()
    source = found.get("source")
    return TraceLine(
        found["function"] or found.get("name") or "",
        int(found["offset"], 16) if found["offset"] else None,
        int(found["size"], 16) if found["size"] else None,
        found["module"] or found.get("in"),
        None if source == "inlined" else source,
        not found.get("unsure"),
        stack,
    )


def find_hardware(lines: Iterable[str]) -> tuple[str, str | None] | None:
    """Return the machine's name and its firmware's version, if a line has them."""
    for line in lines:
        match = _HARDWARE.match(line)
        words = (match[1] or match[2] or "").strip() if match else ""
        if words:
            parts = _BIOS.match(words)
            name, bios = (parts[1], parts[2]) if parts else (words, None)
            return name.strip(), bios.strip() or None if bios else None
    return None


def find_release(lines: Sequence[str]) -> tuple[str | None, str | None]:
    """Return the kernel's release and its build, if the lines have them."""
    for line in lines:
        if match := _BANNER.match(line):
            build = line.partition(" #")[2]
            return match[1], f"#{build}" if build else None
    for line in lines:
        if match := _RELEASE.search(line):
            build = line[match.end() :].strip()
            return match[1], build if build.startswith("#") else None
    return None, None
