# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump ask`` without a question: a prompt, or standard input."""

import fcntl
import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rigs.dead_machine import DeadMachine
from rigs.programs import KMEMDUMP
from rigs.scenarios import each_series_once


@pytest.fixture(scope="session")
def asked(dead: DeadMachine) -> Path:
    core = dead.scratch / "asked.elf"
    target = f"qmp:{dead.machine.qmp}"
    subprocess.run([*KMEMDUMP, "capture", target, "-o", core], check=True)
    return core


@each_series_once
def test_questions_from_standard_input(dead: DeadMachine, asked: Path) -> None:
    said = subprocess.run(
        [*KMEMDUMP, "ask", asked],
        input="# the log\nlog -t | grep -m 1 Linux.version\n\nnosuch\nmod\n",
        capture_output=True,
        text=True,
    )
    assert said.stdout.startswith("Linux version ")
    assert "dummy" in said.stdout
    assert "no crash command 'nosuch'" in said.stderr
    assert said.returncode == 1


class Terminal:
    """A person at a terminal, who asks a core image."""

    def __init__(self, core: Path, state: Path) -> None:
        self._ours, theirs = pty.openpty()
        self._said = ""
        self.process = subprocess.Popen(
            [*KMEMDUMP, "ask", core],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(theirs, termios.TIOCSCTTY, 0),
            env={**os.environ, "TERM": "dumb", "XDG_STATE_HOME": str(state)},
        )
        os.close(theirs)

    def wait_for(self, words: str) -> str:
        """Return what is said up to and with *words*."""
        assert self.says(words, 120), f"no {words!r} in {self._said!r}"
        found, _, self._said = self._said.partition(words)
        return found + words

    def says(self, words: str, seconds: float) -> bool:
        """Return whether *words* are said before nothing is said for some seconds."""
        while words not in self._said:
            if not select.select([self._ours], [], [], seconds)[0]:
                return False
            self._said += os.read(self._ours, 4096).decode()
        return True

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


@pytest.fixture
def sit_down(asked: Path, tmp_path: Path) -> Iterator[Callable[[], Terminal]]:
    terminals: list[Terminal] = []

    def sit_down() -> Terminal:
        terminals.append(Terminal(asked, tmp_path / "state"))
        terminals[-1].wait_for("kmemdump> ")
        return terminals[-1]

    yield sit_down
    for terminal in terminals:
        terminal.close()


@each_series_once
def test_prompt_on_a_terminal(
    dead: DeadMachine, sit_down: Callable[[], Terminal], tmp_path: Path
) -> None:
    release = dead.machine.setup.kernel.release
    here = sit_down()
    here.type("sys\n")
    assert release in here.wait_for("kmemdump> ")
    # Commands and Python are completed.
    here.type("mou\t\n")
    assert "rootfs" in here.wait_for("kmemdump> ")
    here.type("prog.platf\t\n")
    assert "Platform(" in here.wait_for("kmemdump> ")
    # Python of several lines, and what is neither.
    here.type("for cpu in for_each_possible_cpu(prog):\n")
    here.wait_for("........> ")
    here.type("    print('one', cpu)\n\n")
    assert "one 0" in here.wait_for("kmemdump> ")
    here.type("nosuch\n")
    assert "no crash command 'nosuch'" in here.wait_for("kmemdump> ")
    here.type("1 / 0\n")
    assert "ZeroDivisionError" in here.wait_for("kmemdump> ")
    # Ctrl-C forgets a line, and ends what takes too long.
    here.type("while True: pass")
    here.wait_for("pass")
    time.sleep(1)  # Python's readline loses one that comes before it waits for keys.
    here.type("\x03")
    while not here.says("kmemdump> ", 20):
        here.type("\x03")
    here.wait_for("kmemdump> ")
    begun = tmp_path / "begun"
    here.type(f"open('{begun}', 'x').close() or [0 for _ in iter(int, 1) if _]\n")
    deadline = time.monotonic() + 120
    while not begun.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    here.type("\x03")
    assert "kmemdump: stopped" in here.wait_for("kmemdump> ")
    here.type("exit\n")
    assert here.process.wait(60) == 0
    # Another day.
    history = tmp_path / "state/kmemdump/history"
    assert history.stat().st_mode & 0o077 == 0
    again = sit_down()
    again.type("mod\n")
    assert "dummy" in again.wait_for("kmemdump> ")
    again.type("\x04")
    assert again.process.wait(60) == 0
    lines = history.read_text().splitlines()
    assert [line for line in lines if line in ("sys", "mount", "mod", "exit")] == (
        ["sys", "mount", "exit", "mod"]
    )


@each_series_once
def test_python_from_standard_input(dead: DeadMachine, asked: Path) -> None:
    said = subprocess.run(
        [*KMEMDUMP, "ask", asked],
        input="names = []\nfor task in for_each_task(prog):\n"
        "    names.append(task.comm.string_())\n\nnames.count(b'sleep')\n"
        "prog['init_uts_ns'].name.sysname\n",
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout == '200\n(char [65])"Linux"\n'
