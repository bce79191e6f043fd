# SPDX-License-Identifier: GPL-2.0-or-later
"""Completion in real shells, set up as the manual says, by keys that are typed."""

import json
import os
import pty
import re
import select
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

MANUAL = Path(__file__).parents[2] / "docs/reference/kmemdump.rst"
FILES = {"bash": ".bashrc", "zsh": ".zshrc", "fish": ".config/fish/config.fish"}
VERB = b"kmemdump are\t--js\t>found\rexit\r"
# It is no dump, which kmemdump says, by its whole name.
FILE = b"kmemdump info letter.t\t2>found\rexit\r"


def lines_for(shell: str) -> str:
    """Return what the manual has one put into the shell's file."""
    section = MANUAL.read_text().partition("\nCompletion\n")[2].partition("\nJSON\n")[0]
    assert f"``~/{FILES[shell]}``" in section
    (block,) = re.findall(
        rf"^{shell}\n(?: .*\n|\n)*?   \.\. code-block:: sh\n\n((?:      .+\n)+)",
        section,
        re.MULTILINE,
    )
    return str(block)


@pytest.mark.parametrize("shell", FILES)
def test_verbs_and_options(shell, tmp_path):
    found, said = typed(shell, tmp_path, VERB)
    assert json.loads(found)["areas"], said


@pytest.mark.parametrize("shell", FILES)
def test_file_names(shell, tmp_path):
    (tmp_path / "letter.txt").write_text("Dear reader\n")
    found, said = typed(shell, tmp_path, FILE)
    assert "letter.txt: " in found, said


def typed(shell: str, folder: Path, keys: bytes) -> tuple[str, str]:
    """Type into a shell; return what the file "found" has, and what the shell said."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"needs {shell}; 'make test' installs it")
    path = folder / FILES[shell]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{lines_for(shell)}\necho rea''dy\n")
    environ = {
        "HOME": str(folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TERM": "dumb",
    }
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execve(program, [program, "-i"], environ)
    try:
        said = read_until(terminal, b"ready")
        os.write(terminal, keys)
        said += read_until(terminal, b"")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)
    found = folder / "found"
    assert found.exists(), said.decode()
    return found.read_text(), said.decode()


def read_until(terminal: int, mark: bytes) -> bytes:
    """Read what is printed up to a mark; without one, to the end."""
    said = b""
    deadline = time.monotonic() + 240
    while not (mark and mark in said):
        left = deadline - time.monotonic()
        if left < 0 or not select.select([terminal], [], [], left)[0]:
            break
        try:
            said += os.read(terminal, 4096)
        except OSError:  # EIO: the shell has ended.
            break
    return said
