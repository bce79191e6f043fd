# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest, a file or a folder calls itself: nothing of it gets at a terminal."""

import os
from dataclasses import replace

import pytest

from agent.test_agent import STATUS
from kmemdump.agent.status import write
from kmemdump.cli import main
from kmemdump.cli.shared.agent_output import AgentOutput, run_folder
from kmemdump.cli.shared.watch_output import WatchOutput
from kmemdump.errors import UnsupportedError
from kmemdump.vmcoreinfo import VmcoreInfo
from kmemdump.watch import Event, EventName
from rigs.writers.ramoops import write_zone

EVIL = "\x1b]0;owned\x07\u202e\r"


def shown(capsys) -> str:
    """Return the lines that were printed, each of which is harmless."""
    said = "".join(capsys.readouterr())
    assert all(line.isprintable() for line in said.split("\n"))
    return said


def test_release():
    """It is in the lines of capture, watch, mark and status."""
    info = VmcoreInfo.parse(b"OSRELEASE=6.1\x1b[2J\n", "guest")
    assert info.osrelease == r"6.1\x1b[2J"


def test_a_watch(capsys):
    with WatchOutput({}, verbose=True, as_json=False) as output:
        output.show(Event(event=EventName.MARKED, vm=f"vm{EVIL}", text=f"is {EVIL}"))
    assert r"vm\x1b]0;owned" in shown(capsys)


@pytest.mark.parametrize("journal", [{}, {"JOURNAL_STREAM": "8:1"}])
def test_an_agent(capsys, journal):
    output = AgentOutput(journal, f"qmp:{EVIL}")
    output.print_line(EVIL)
    output.warn(EVIL)
    assert shown(capsys).count("owned") == 3


def test_status(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    write(tmp_path, "a", replace(STATUS, kernel=EVIL, failure=EVIL, problems=(EVIL,)))
    assert main(["status"]) == 1
    assert shown(capsys).count("owned") == 3


def test_ramoops(capsys, tmp_path):
    path = tmp_path / "ram"
    text = f"[    1.5] {'good ' * 100} evil{EVIL}\n".encode()
    path.write_bytes(write_zone(text, 4096).ljust(1 << 16, b"\0"))
    assert main(["ask", str(path), "ramoops", "--memory-map", "0"]) == 0
    assert r"evil\x1b" in shown(capsys)


def test_ramoops_of_a_time_that_no_calendar_has(capsys, tmp_path):
    path = tmp_path / "ram"
    text = b"====99999999999999999999.5-D\nPanic#1 Part1\n<0>[    1.5] Kernel panic\n"
    path.write_bytes(write_zone(text, 4096).ljust(1 << 16, b"\0"))
    assert main(["ask", str(path), "ramoops", "--memory-map", "0"]) == 0
    assert "Kernel panic" in shown(capsys)


def test_a_run_folder_that_another_user_made(monkeypatch, tmp_path):
    """In /tmp, whoever comes first could answer for a user's watches."""
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    folder = run_folder({})
    assert folder == tmp_path / "kmemdump-12345"
    folder.mkdir()
    with pytest.raises(UnsupportedError, match="another user made it"):
        run_folder({})
    monkeypatch.setattr("os.geteuid", lambda: os.getuid() or 4321)
    assert run_folder({"XDG_RUNTIME_DIR": "/run/user/1"}).parts[-1] == "kmemdump"
