# SPDX-License-Identifier: GPL-2.0-or-later
"""The question ``dis``."""

import pytest
from drgn import Architecture, Platform, Program, Symbol, SymbolBinding, SymbolKind

from kmemdump.errors import UsageError
from kmemdump.questions.parse import parse_question
from kmemdump.questions.question import attempt

START = 0xFFFFFFFF81000000
CODE = bytes.fromhex("55e80a000000c704250800000001000000c3") + b"\xcc" * 14
SYMBOLS = (("caller", START, 18), ("callee", START + 16, 16), ("far", 0x1000, 8))


@pytest.fixture
def prog():
    prog = Program(Platform(Architecture.X86_64))
    prog.add_memory_segment(
        START, len(CODE), lambda _, count, offset, __: CODE[offset : offset + count]
    )

    def find(_prog, name, address, _one):
        return [
            Symbol(it, start, size, SymbolBinding.GLOBAL, SymbolKind.FUNC)
            for it, start, size in SYMBOLS
            if (name is None or it == name)
            and (address is None or start <= address < start + size)
        ][:1]

    prog.register_symbol_finder("test", find, enable_index=0)
    return prog


def ask(prog, text):
    (question,) = parse_question(text)
    return attempt(prog, question)


def test_a_function(prog):
    text, error = ask(prog, "dis caller")
    assert error is None
    assert text.splitlines() == [
        "   0xffffffff81000000 <caller>  push rbp",
        "   0xffffffff81000001 <caller+0x1>  call 0xffffffff81000010 <caller+0x10>",
        "   0xffffffff81000006 <caller+0x6>  mov dword ptr [8], 1",
        "   0xffffffff81000011 <caller+0x11>  ret",
    ]


@pytest.mark.parametrize(
    "text", ["dis caller+0x6", "dis caller+6", "dis 0xffffffff81000006"]
)
def test_an_address_is_marked(prog, text):
    lines = ask(prog, text)[0].splitlines()
    marked = [line for line in lines if line.startswith("->")]
    assert marked == ["-> 0xffffffff81000006 <caller+0x6>  mov dword ptr [8], 1"]
    assert lines[0] == "   0xffffffff81000000 <caller>  push rbp"


def test_code_that_was_not_captured(prog):
    _, error = ask(prog, "dis far")
    assert "--area crash" in "".join(error.__notes__)


def test_no_such_function(prog):
    _, error = ask(prog, "dis nosuch")
    assert "nosuch" in str(error)


@pytest.mark.parametrize("text", ["dis", "dis a b", "dis 12", "dis a+b", "dis ;ls"])
def test_wrong_use(text):
    with pytest.raises(UsageError, match="expected dis FUNCTION"):
        parse_question(text)
