# SPDX-License-Identifier: GPL-2.0-or-later
"""Crash commands: only those that a user typed reach a shell or Python."""

from pathlib import Path

import pytest
from drgn import Program
from drgn.commands import CommandExitStatusError, ParsedCommand
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.areas import AREAS
from kmemdump.errors import UsageError
from kmemdump.kernel.program import core_program
from kmemdump.questions import drgn_internals
from kmemdump.questions.crash_commands import _SAFE_COMMANDS, command
from kmemdump.questions.question import answer, attempt, explain
from kmemdump.questions.tolerant_commands import TOLERANT_COMMANDS
from kmemdump.vmcoreinfo import VmcoreInfo
from rigs.synthetic import vmcoreinfo


@pytest.fixture
def prog(monkeypatch) -> Program:
    """A kernel with a log of three lines and nothing else."""
    log = "one\ntwo\nthree\n"
    show = lambda _prog, _run: print(log, end="")  # noqa: E731
    monkeypatch.setitem(TOLERANT_COMMANDS, ("log",), show)
    return core_program(62, VmcoreInfo.parse(vmcoreinfo(), "test"), "the test")


# From a file


HOSTILE = [
    "log | touch {}",
    "log|touch {}",
    "log |touch {}",
    "log > {}",
    "log>{}",
    "log >> {}",
    "log 2> {}",
    "log < {}",
    "log ; touch {}",
    "log & touch {}",
    "log && touch {}",
    "log\ntouch {}",
    "log\n!touch {}",
    "log\r!touch {}",
    "log \\\n| touch {}",
    "log `touch {}`",
    "log $(touch {})",
    "log $(touch${{IFS}}{})",
    "log # | touch {}",
    "log '|' touch {}",
    'log "| touch {}',
    "log\t| touch {}",
    "log\x0b| touch {}",
    "log\u2028| touch {}",
    "log\0| touch {}",
    "!touch {}",
    "! touch {}",
    " !touch {}",
    "sh touch {}",
    "sh -c 'touch {}'",
    "py open('{}', 'w')",
    "drgn open('{}', 'w')",
    "eval open('{}', 'w')",
    "p open('{}', 'w')",
    "rd -r {} ffff888000000000 8",
    "search -k {}",
    "foreach bt | touch {}",
    "foreach drgn open('{}', 'w')",
    "set scroll on",
    "source {}",
    "exit",
    "q",
    "crash log",
    "*task_struct | touch {}",
    "task_struct | touch {}",
    "'log' | touch {}",
    "l\\og | touch {}",
    "{}",
    "",
    " ",
    "|",
    ">",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_file_reaches_no_shell_and_no_python(text, prog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sentinel = tmp_path / "sentinel"
    with pytest.raises(UsageError):
        # Were it not refused, the sentinel would tell.
        attempt(prog, command(text.format(sentinel)))
    assert list(tmp_path.iterdir()) == []


_WORDS = "log ps sys bt | > < touch sentinel $( ) ` ! ; & ' \" \\ -a 1 drgn py"
_PIECES = st.sampled_from([*_WORDS.split(), " ", "\n", "\t", "open('s','w')"])


@given(st.lists(_PIECES, max_size=8).map("".join))
def test_whatever_a_file_says_it_is_refused_or_only_reads(text):
    try:
        question = command(text)
    except UsageError:
        return
    words = question.text.split()
    assert words[0] in _SAFE_COMMANDS
    assert not set(question.text) & set("|<>&;`$()!'\"\\\n\t")


def test_what_runs_for_a_file_has_no_globals_and_no_shell(prog, monkeypatch):
    """Even if one of drgn's commands were not as harmless as it looks."""
    seen = {}

    class Spy:
        def parse(self, source):
            return ParsedCommand(["a"], (), "touch sentinel")

        def run(self, prog, name, args, *, globals):
            seen.update(globals=globals)

    commands = drgn_internals.CRASH_COMMAND_NAMESPACE._commands
    monkeypatch.setitem(commands, "sys", Spy())
    with pytest.raises(UsageError, match="redirects its output"):
        command("sys")
    assert seen == {}


def test_the_areas_ask_nothing_that_a_file_could_not():
    for area in AREAS:
        for question in area.questions:
            if question.repeatable:
                assert command(question.text).text == question.text


# Typed by a user


def test_the_log_is_ours(prog):
    assert answer(prog, command("log")) == "one\ntwo\nthree\n"
    assert answer(prog, command("  log  ", trusted=True)) == "one\ntwo\nthree\n"


@pytest.mark.parametrize("text", ["log | grep t", "log|grep t", "log   | cat | grep t"])
def test_the_log_through_a_pipe_is_ours_too(prog, text):
    assert answer(prog, command(text, trusted=True)) == "two\nthree\n"


def test_the_log_into_a_file_is_ours_too(prog, tmp_path):
    path = tmp_path / "log"
    assert answer(prog, command(f"log > {path}", trusted=True)) == ""
    assert path.read_text() == "one\ntwo\nthree\n"
    answer(prog, command(f"log >>{path}", trusted=True))
    assert len(path.read_text().splitlines()) == 6
    answer(prog, command(f"log > '{path} 2' | cat", trusted=True))
    assert Path(f"{path} 2").read_text() == "one\ntwo\nthree\n"


def test_a_pipe_that_stops_reading(prog):
    assert answer(prog, command("log | head -n 1", trusted=True)) == "one\n"


def test_a_pipe_that_fails(prog):
    text, error = attempt(prog, command("log | head -n 1; false", trusted=True))
    assert text == "one\n"
    assert isinstance(error, CommandExitStatusError)
    assert explain(error) == "'head -n 1; false' exited with status 1"


def test_a_file_that_cannot_be_written(prog, tmp_path):
    question = command(f"log > {tmp_path}/none/x", trusted=True)
    _, error = attempt(prog, question)
    assert explain(error) == f"{tmp_path}/none/x: No such file or directory"


def test_quotes_and_comments(prog):
    assert answer(prog, command("log # all of it", trusted=True)).count("\n") == 3
    question = command(
        "log | grep 'two\\|three' # not a comment for drgn", trusted=True
    )
    assert answer(prog, question) == "two\nthree\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "an empty question; 'help' lists"),
        ("nosuch", "no crash command 'nosuch'; 'help' lists them, and FILE.py"),
        ("!id", "no crash command '!id'"),
        ("bt --nosuch", "'bt --nosuch': unrecognized arguments: --nosuch; 'help bt'"),
        ("sig nobody", "invalid 'pid_or_task' value: 'nobody'"),
        ("log -T -t", "not allowed with argument"),
        ("log >", "unexpected end of input"),
        ("log |", "unexpected end of input"),
        ("bt 'unfinished", 'unexpected "\'"'),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_is_read(text, problem, capsys):
    with pytest.raises(UsageError) as raised:
        command(text, trusted=True)
    assert problem in str(raised.value)
    assert capsys.readouterr() == ("", "")  # argparse would print its usage.


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ps --nosuch", "unrecognized arguments: --nosuch; 'help ps' shows its usage"),
        ("foreach bt -Q", "unrecognized arguments: -Q; 'help foreach'"),
        ("eval (", "bad expression; 'help eval'"),
    ],
)
def test_commands_that_parse_their_arguments_themselves(prog, text, problem, capsys):
    with pytest.raises(UsageError) as raised:
        answer(prog, command(text, trusted=True))
    assert problem in str(raised.value)
    assert capsys.readouterr() == ("", "")


def test_only_the_log_needs_no_symbols():
    assert command("log").bare
    assert command("log -t | tail", trusted=True).bare
    assert not command("log --drgn", trusted=True).bare
    assert not command("ps").bare


def test_python_is_for_users(prog):
    with pytest.raises(UsageError):
        command("drgn print(6 * 7)")
    assert answer(prog, command("drgn print(6 * 7)", trusted=True)) == "42\n"


def test_only_a_prompt_can_be_left():
    for text in ("exit", "q"):
        with pytest.raises(UsageError, match="only a prompt can be left"):
            command(text, trusted=True)
