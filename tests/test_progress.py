# SPDX-License-Identifier: GPL-2.0-or-later
"""How far long work has come: told by those who do it, shown on a terminal."""

import logging
import os
import pty
import subprocess
import sys
from contextlib import suppress

import pytest

from kmemdump.cli import main
from kmemdump.kernel_search.notes import scan_vmcoreinfo
from kmemdump.memory.physical import PAGE_SIZE, PageMemory
from kmemdump.memory.search import find_bytes
from kmemdump.progress import LOGGER
from rigs.small_core import write

MEMORY = PageMemory({number: bytes(PAGE_SIZE) for number in (1, 2, 7, 9000)})


def copy(tmp_path):
    write(tmp_path / "core")


def compare(tmp_path):
    main(["info", str(write(tmp_path / "core"))])


WORK = {
    "looking for a kernel": lambda _: list(scan_vmcoreinfo(MEMORY)),
    "searching memory": lambda _: list(find_bytes(MEMORY, b"mark", 4)),
    "copying memory": copy,
    "comparing checksums": compare,
}


@pytest.mark.parametrize("what", WORK)
def test_long_work_tells_how_far_it_is(what, tmp_path, caplog):
    with caplog.at_level(logging.DEBUG, LOGGER):
        WORK[what](tmp_path)
    shares = [record.share for record in caplog.records if record.message == what]
    assert shares[0] == 0
    assert shares == sorted(set(shares))
    assert 0 < shares[-1] < 1


SHOW = """
from kmemdump.cli.shared.messages import held_back_warnings
from kmemdump.progress import report_progress
import logging, sys
with held_back_warnings(progress=True):
    report_progress("copying memory", 1, 4)
    logging.getLogger("kmemdump.x").warning("it is odd")
print("done", file=sys.stderr)
"""


def shown(terminal: bool) -> str:
    """Return what is printed; the line of progress is there once, before it goes."""
    argv = [sys.executable, "-c", SHOW]
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    if not terminal:
        return subprocess.run(argv, stderr=subprocess.PIPE, text=True).stderr
    ours, its = pty.openpty()
    with subprocess.Popen(argv, stderr=its, env=environ) as process:
        os.close(its)
        process.wait(60)
    said = b""
    with suppress(OSError):  # EIO: all is read, which comes in pieces.
        while piece := os.read(ours, 1 << 16):
            said += piece
    os.close(ours)
    return said.decode()


def test_a_bar_on_a_terminal():
    said = shown(terminal=True)
    assert "copying memory …" in said
    assert " 25%" in said
    assert said.index(" 25%") < said.index("warning: it is odd") < said.index("done")


def test_no_bar_elsewhere():
    assert shown(terminal=False) == "kmemdump: warning: it is odd\ndone\n"
