# SPDX-License-Identifier: GPL-2.0-or-later
"""Text for people."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.text import (
    c_string,
    format_duration,
    format_memory,
    format_size,
    printable,
    shell_command,
)


@given(st.text())
def test_printable(text):
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Grüße, 世界", "Grüße, 世界"),
        ("\x1b[31m\0", r"\x1b[31m\x00"),
        ("a\tb\n", r"a b\n"),
        ("\u202egnp.exe\u200b", r"\u202egnp.exe\u200b"),
        ("\ud800\U000e0041", r"\ud800\U000e0041"),
    ],
)
def test_escapes(text, shown):
    assert printable(text) == shown


def test_kept_characters():
    assert printable("a\tb\n\x1b", keep="\t\n") == "a\tb\n\\x1b"


def test_commands_to_paste():
    pasted = shell_command("kmemdump", "ask", Path("/my dumps/$a.core"), "bt 1")
    assert pasted == "kmemdump ask '/my dumps/$a.core' 'bt 1'"


@pytest.mark.parametrize(
    "name", ["it's", "\x1b[31m\n\u202e\\x'", os.fsdecode(b"\xff\xfe"), "-i", "é\x01a"]
)
def test_a_command_of_any_name_is_one_line_that_a_shell_understands(name):
    pasted = shell_command("printf", "%s", Path(name))
    assert pasted.isprintable()
    shown = subprocess.run(["bash", "-c", pasted], capture_output=True, check=True)
    assert os.fsdecode(shown.stdout).removeprefix("./") == name
    assert not shown.stdout.startswith(b"-")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1 min"), (90061, "1 d 1 h 1 min 1 s")],
)
def test_duration(seconds, words):
    assert format_duration(seconds) == words


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0.0 kB"), (99_900, "99.9 kB"), (100_000, "0.1 MB"), (7_240_000, "7.2 MB")],
)
def test_size(size, words):
    assert format_size(size) == words


@pytest.mark.parametrize(
    ("size", "words"),
    [(1, "1 KiB"), (498 << 20, "498 MiB"), (3 << 29, "1.5 GiB")],
)
def test_memory(size, words):
    assert format_memory(size) == words


def test_c_string():
    assert c_string(b"md_K\xff\x1b\0rest") == "md_K\\xff\x1b"
    assert c_string(b"whole") == "whole"
