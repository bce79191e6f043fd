# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest in a process, with a synthetic kernel in a process of the test."""

import ctypes
import mmap
import os
import signal
import struct
import subprocess
import sys
import time

import pytest

from kmemdump.cli import main
from kmemdump.errors import ExitCode, FormatError, NotCapturedError, TargetError
from kmemdump.memory.ranges import Range
from kmemdump.opening import open_target
from kmemdump.targets.process import ProcessTarget
from kmemdump.targets.process_memory import ProcessMemory, open_process
from kmemdump.targets.process_pause import ProcessPause
from kmemdump.targets.vm import VmTarget
from rigs.guest_process import GuestProcess, Part
from rigs.synthetic import vmcoreinfo_note
from rigs.writers.kernel_memory import MIB, SyntheticKernel

pytestmark = pytest.mark.slow

RAM = 0x80000000
PATIENCE = 60
MAP_FIXED = 0x10  # include/uapi/asm-generic/mman-common.h


def kernel(arch: str = "aarch64", **options: object) -> SyntheticKernel:
    ram = 0 if arch == "x86_64" else RAM
    return SyntheticKernel(arch, ram=ram, **options)


@pytest.fixture
def process(tmp_path):
    started = []

    def start(*parts: Part) -> GuestProcess:
        started.append(GuestProcess(tmp_path, *parts))
        return started[-1]

    yield start
    for item in started:
        item.end()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_found_by_contents(process, arch, shared):
    made = kernel(arch)
    monitor = process(Part(bytes(made.memory), shared))
    with open_target(f"pid:{monitor.pid}") as target:
        assert isinstance(target, VmTarget)
        info = target.vmcoreinfo()
        assert not made.truth.items() - info.values.items()
        assert target.machine == (62 if arch == "x86_64" else 183)
        for at in (made.place, made.place + 0x120000, made.size - 4096):
            data = target.memory.read(made.ram + at, 4096)
            assert data == made.memory[at : at + 4096]
        assert target.registers() == []
        assert target.status() == "running"
        assert not target.memory.outlives_process


def test_found_by_its_note(process):
    made = kernel()
    first = process(Part(bytes(made.memory)))
    with ProcessTarget(first.pid) as target:
        text = target.vmcoreinfo().raw + b"CRASHTIME=1\n"
    raw = vmcoreinfo_note(text)
    made.memory[0x1000 : 0x1000 + len(raw)] = raw
    second = process(Part(bytes(made.memory), shared=True))
    with ProcessTarget(second.pid) as target:
        assert target.vmcoreinfo().raw == text
        assert target.memory.ranges == [Range(RAM, made.size)]


def test_memory_that_was_never_used_stays_so(process):
    """Reading it in the process would allocate it."""
    made = kernel()
    monitor = process(Part(bytes(made.memory), shared=True, hole=64 * MIB))
    before = monitor.ask("blocks")
    with ProcessTarget(monitor.pid) as target:
        assert target.vmcoreinfo()
        end = target.memory.ranges[-1].end
        assert end == RAM + made.size + 64 * MIB
        assert target.memory.read(end - 32 * MIB, MIB) == bytes(MIB)
    assert monitor.ask("blocks") == before


def test_memory_that_is_added(process):
    """Links of lists lead to it, and prove where it is."""
    made = kernel()
    size, place = 64 * MIB, RAM + 256 * MIB
    more = bytearray(os.urandom(MIB)) + bytes(size - MIB)
    direct = made.direct + made.ram - RAM
    for number in range(16):  # Heads of lists in a page that is known.
        at = 0x2000 + 64 * number
        node = 0x1000 * number + 0x340
        head = direct + RAM + at
        made.memory[at : at + 8] = struct.pack("<Q", direct + place + node)
        more[node + 8 : node + 16] = struct.pack("<Q", head)
    now = [1000.0]
    monitor = process(
        Part(bytes(made.memory), shared=True), Part(bytes(more), shared=True, late=True)
    )
    with ProcessTarget(monitor.pid, clock=lambda: now[0]) as target:
        assert target.vmcoreinfo()
        held = target.memory
        assert monitor.ask("map") == "mapped"
        now[0] += 20
        assert held.read(place + 100, 900) == more[100:1000]
        first, second = held.ranges
        assert first == Range(RAM, made.size)
        # Other memory may be next to it.
        assert (second.start, second.size // MIB) == (place, 64)
        [news] = target.follow_memory()
        assert news == f"its RAM has {made.size // MIB + 64} MiB now, 10 MiB before"
        assert target.follow_memory() == []
        with pytest.raises(NotCapturedError):
            held.read(place - 1, 1)


@pytest.fixture
def neighbours():
    """Address of three MiB without a gap: of two files, and anonymous memory."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int),
        *(ctypes.c_int, ctypes.c_int, ctypes.c_long),
    ]
    libc.munmap.argtypes = libc.mmap.argtypes[:2]
    libc.madvise.argtypes = libc.mmap.argtypes[:3]
    access = mmap.PROT_READ | mmap.PROT_WRITE
    anonymous = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    # What else is next to it is no part of it.
    whole = libc.mmap(None, 5 * MIB, 0, anonymous, -1, 0)
    start = whole + MIB
    for number in range(2):
        fd = os.memfd_create("ram")
        os.ftruncate(fd, MIB)
        at, fixed = start + number * MIB, mmap.MAP_SHARED | MAP_FIXED
        assert libc.mmap(at, MIB, access, fixed, fd, 0) == at
        os.close(fd)
    at = start + 2 * MIB
    assert libc.mmap(at, MIB, access, anonymous | MAP_FIXED, -1, 0) == at
    assert libc.madvise(start + MIB // 2, 4096, mmap.MADV_DONTFORK) == 0
    yield start
    libc.munmap(whole, 5 * MIB)


def test_memory_next_to_it(neighbours):
    """Which is another node's, or a thread's stack; but RAM may be cut by advice."""
    folder = open_process(os.getpid())
    memory = ProcessMemory(os.getpid(), folder)
    within = Range(neighbours, 3 * MIB)
    found = [it for it in memory.ranges if within.start <= it.start < within.end]
    assert found == [Range(neighbours + number * MIB, MIB) for number in range(3)]
    inside = [it for it in memory.starts if within.start <= it < within.end]
    assert len(inside) == 5
    memory.close()
    os.close(folder)


def test_forgotten_and_found_again(process, monkeypatch):
    """Without a search, which takes time; now and then with one."""
    now = [1000.0]
    monitor = process(Part(bytes(kernel().memory), shared=True))
    searches = []
    original = ProcessTarget._search

    def search(target):
        searches.append(now[0])
        return original(target)

    monkeypatch.setattr(ProcessTarget, "_search", search)
    with ProcessTarget(monitor.pid, clock=lambda: now[0]) as target:
        info = target.vmcoreinfo()
        for _ in range(20):
            now[0] += 3
            target.forget()
            assert target.vmcoreinfo() == info
    assert searches == [1000.0, 1030.0, 1060.0]


def test_no_kernel(process):
    now = [0.0]
    monitor = process(Part(os.urandom(2 * MIB)))
    with ProcessTarget(monitor.pid, clock=lambda: now[0]) as target:
        for _ in range(2):
            with pytest.raises(TargetError, match=r"no kernel in the [0-9]+ MiB"):
                target.vmcoreinfo()
        with pytest.raises(TargetError):
            _ = target.machine


def test_two_kernels(process):
    first = kernel("x86_64")
    second = kernel("aarch64")
    monitor = process(Part(bytes(first.memory), True), Part(bytes(second.memory), True))
    with (
        ProcessTarget(monitor.pid) as target,
        pytest.raises(FormatError, match="2 kernels in its memory, expected one"),
    ):
        target.vmcoreinfo()


def test_no_process(process, capsys):
    monitor = process(Part(bytes(kernel().memory)))
    with ProcessTarget(monitor.pid) as target:
        assert target.vmcoreinfo()
        assert target.client.connected
        monitor.end()
        assert not target.client.connected
        assert target.client.event(PATIENCE) is None  # At once.
        with pytest.raises(NotCapturedError):
            target.memory.read(RAM, 8)
        with pytest.raises(TargetError, match="the process has ended"):
            target.status()
    with pytest.raises(TargetError, match=f"process {monitor.pid}: No such"):
        ProcessTarget(monitor.pid)
    assert main(["capture", f"pid:{monitor.pid}", "-o", "x"]) == ExitCode.UNREADABLE
    assert "No such" in capsys.readouterr().err


def test_stopped_and_let_go(process):
    monitor = process(Part(bytes(kernel().memory)))
    with ProcessTarget(monitor.pid) as target:
        target.stop()
        assert target.status() == "paused"
        assert set(_states(monitor.pid)) == {"t"}
        target.stop()  # It is already.
        os.kill(monitor.pid, signal.SIGWINCH)
        target.cont()
        assert target.status() == "running"
        assert_counts(monitor)
        target.stop()
    assert_counts(monitor)  # Closing lets it go.


def assert_counts(monitor: GuestProcess) -> None:
    """Wait until its threads run; on a busy host, none may between two questions."""
    before = monitor.ask("count")
    deadline = time.monotonic() + PATIENCE
    while monitor.ask("count") == before:
        assert time.monotonic() < deadline


def _states(pid: int) -> list[str]:
    states = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/stat") as file:
            states.append(file.read().rpartition(")")[2].split()[0])
    return states


STOP = """
import sys
from kmemdump.targets.process import ProcessTarget
ProcessTarget(int(sys.argv[1])).stop()
print("stopped", flush=True)
sys.stdin.read()
"""


def test_it_goes_on_if_who_stopped_it_is_killed(process):
    monitor = process(Part(bytes(kernel().memory)))
    command = [sys.executable, "-c", STOP, str(monitor.pid)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as other:
        assert other.stdout.readline() == "stopped\n"
        assert set(_states(monitor.pid)) == {"t"}
        other.kill()
    deadline = time.monotonic() + PATIENCE
    while "t" in _states(monitor.pid):
        assert time.monotonic() < deadline
    assert_counts(monitor)


def test_what_another_one_traces_cannot_be_stopped(process):
    monitor = process(Part(bytes(kernel().memory)))
    folder = open_process(monitor.pid)
    first, second = (ProcessPause(monitor.pid, folder) for _ in range(2))
    first.stop()
    with pytest.raises(TargetError, match="cannot stop it: Operation not permitted"):
        second.stop()
    second.close()
    assert first.stopped
    first.close()
    os.close(folder)


SPAWN = """
import os, sys, threading
def spawn():
    opened = (os.POSIX_SPAWN_OPEN, 0, sys.argv[1], os.O_RDONLY, 0)
    os.posix_spawn("/bin/true", ["true"], {}, file_actions=[opened])
threading.Thread(target=spawn).start()
sys.stdin.read()
"""


def test_a_thread_that_does_not_stop_yet_is_not_stopped_later(tmp_path):
    """
    It waits as for a disk: for its child to begin, which waits for who writes a FIFO.
    """
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    command = [sys.executable, "-c", SPAWN, str(fifo)]
    deadline = time.monotonic() + PATIENCE
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        folder = open_process(process.pid)
        pause = ProcessPause(process.pid, folder)
        while "D" not in _states(process.pid):
            assert time.monotonic() < deadline
        with pytest.raises(TargetError, match="does not stop"):
            pause.stop()
        assert not pause.stopped
        os.close(os.open(fifo, os.O_WRONLY))
        # It goes on to its end.
        while len(os.listdir(f"/proc/{process.pid}/task")) > 1:
            assert time.monotonic() < deadline
        pause.stop()
        assert set(_states(process.pid)) == {"t"}
        pause.close()
        process.stdin.close()
    os.close(folder)
