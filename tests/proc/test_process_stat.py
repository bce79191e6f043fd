# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of a process, by what the kernel says of it elsewhere."""

import ctypes
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from kmemdump.errors import FormatError
from kmemdump.proc.process_stat import parse_stat, read_stat

TICKS = os.sysconf("SC_CLK_TCK")
PR_SET_NAME = 15
REST = b"1 2 3 4 5 6 7 8 9 10 70 5 -1 -2 20 0 1 0 4321"


@pytest.fixture
def sleeper():
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("name", [b"a) R 1 2", b"", b") Z (", b"\xff\n(", b"x) R\n1 ("])
def test_a_name_of_any_bytes(name):
    libc = ctypes.CDLL(None)
    before = Path("/proc/thread-self/comm").read_bytes().removesuffix(b"\n")
    libc.prctl(PR_SET_NAME, name)
    try:
        found = read_stat("/proc/thread-self/stat")
    finally:
        libc.prctl(PR_SET_NAME, before)
    assert found is not None
    assert (found.name, found.state) == (name, "R")


def test_its_times():
    while time.process_time() < 0.2:
        pass
    found, seconds = read_stat("/proc/self/stat"), time.process_time()
    assert found is not None
    assert abs(found.cpu_seconds - seconds) < 0.1


def test_when_it_was_started():
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    with subprocess.Popen(["sleep", "1000"]) as process:
        found = read_stat(f"/proc/{process.pid}/stat")
        process.kill()
    assert found is not None
    # It is rounded down.
    after = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before - 1 / TICKS <= found.started / TICKS <= after


def test_stopped_and_ended(sleeper):
    path = f"/proc/{sleeper.pid}/stat"

    def states():
        found = read_stat(path)
        assert found is not None
        return found.stopped, found.ended

    assert states() == (False, False)
    sleeper.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED | os.WNOWAIT)
    assert states() == (True, False)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert states() == (False, True)
    sleeper.wait()
    assert read_stat(path) is None


def test_in_a_folder():
    folder = os.open("/proc/self", os.O_RDONLY)
    try:
        found = read_stat("stat", folder=folder)
    finally:
        os.close(folder)
    assert found is not None
    assert found.started == read_stat("/proc/self/stat").started


def test_fields_by_the_manual():
    found = parse_stat(b"12 (a) b) S " + REST + b" 99 -1\n", "stat")
    assert (found.name, found.state, found.ticks) == (b"a) b", "S", 75)
    assert found.started == 4321


@pytest.mark.parametrize(
    "data", [b"", b"12 a S " + REST, b"12 (a) S " + REST[:-5], b"12 (a) 3 " + REST]
)
def test_something_else(data):
    with pytest.raises(FormatError, match=r"^stat: .*, expected the state of a"):
        parse_stat(data, "stat")
