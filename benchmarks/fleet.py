# SPDX-License-Identifier: GPL-2.0-or-later
"""
Measure one watch of many VMs, which die at once.

The VMs are copies of one: its RAM and registers as they were, behind simulated QMP. The
watch sees as many VMs as it finds sockets, reads each one's memory, and writes a core
image of each; what a real QEMU would take besides is not measured.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import cpu_seconds
from benchmarks.scene import KMEMDUMP
from kmemdump.errors import TargetError
from kmemdump.kernel.attach import attach
from kmemdump.lab import Machine, PackageCache, Setup
from kmemdump.opening import open_target
from kmemdump.watch.kernel_variables import resolver
from rigs.fake_qemu import FakeQemu

__all__ = ["Fleet", "measure_fleets"]

_MEMORY = 256
"""MiB of the VM that is copied."""
_TASKS = 200
_PATIENCE = 1800.0
"""Seconds on a busy host, for all of the VMs."""
_REST = 30.0
"""Seconds in which nothing happens."""
_TICK = 0.05
_JIFFIES = 12
"""Ticks of the kernel's clock in such a time, at CONFIG_HZ=250."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """What a watch of so many VMs took. Seconds are wall time where not of CPU."""

    count: int
    known: bool
    """Whether a VM with this kernel build had been watched before."""
    marked: float
    """Seconds from the start of the watch until all were marked."""
    marked_cpu: float
    """CPU seconds of the process of each VM until then."""
    own: int
    """Bytes of memory that the process of each VM has for itself."""
    shared: int
    """Bytes that each has with others."""
    rest: float
    """CPU seconds of all processes in a second in which nothing happens, by VMs."""
    named: float
    """Seconds from the death until each VM has a core image."""
    finished: float
    """Seconds from the death until each one has what the second look added."""
    plain: float
    """Seconds in which as many files of that size are written and synced."""
    size: int
    """Bytes of a core image."""


@dataclass(frozen=True, slots=True)
class _Original:
    """The VM that is copied."""

    ram: Path
    registers: str
    """As QEMU prints them."""
    jiffies: int
    """Physical address of the kernel's clock."""
    panic_cpu: int
    """Physical address of what a panic sets first."""


def measure_fleets(
    series: str,
    counts: Sequence[int],
    cache: PackageCache,
    folder: Path,
    say: Callable[[str], None],
) -> list[Fleet]:
    """
    Measure a watch of each number of VMs, and one whose kernel build is not known.

    :param folder: For RAM and core images, which are removed.
    :param say: Called with a line about each step.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix="fleet-") as name:
        say(f"booting a VM of {_MEMORY} MiB with {_TASKS} tasks, to be copied")
        original = _boot(series, cache, Path(name))
        found = []
        for count, known in [(1, False), *((count, True) for count in counts)]:
            say(f"watching {count} of its copies")
            found.append(_measure(original, count, known, Path(name)))
    return found


def _boot(series: str, cache: PackageCache, folder: Path) -> _Original:
    ram = folder / "ram"
    setup = Setup(cache.kernel(series), memory=_MEMORY, tasks=_TASKS)
    with Machine(cache, setup, timeout=900) as machine:
        machine.pause()
        line = {"command-line": "info registers -a"}
        registers = str(machine.control.execute("human-monitor-command", line))
        assert machine.ram is not None
        subprocess.run(["cp", "--sparse=always", machine.ram, ram], check=True)
    with open_target(str(ram)) as target:
        kernel = attach(target)
        resolve = resolver(kernel)
        jiffies, panic_cpu = (
            resolve(kernel.prog.symbol(name).address, 4)
            for name in ("jiffies_64", "panic_cpu")
        )
    return _Original(ram, registers, jiffies, panic_cpu)


def _measure(original: _Original, count: int, known: bool, folder: Path) -> Fleet:
    cores, sockets = folder / "cores", folder / "sockets"
    for place in (cores, sockets):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
    ram = folder / "copied"
    subprocess.run(["cp", "--sparse=always", original.ram, ram], check=True)
    runtime = folder / "run"
    if not known:
        shutil.rmtree(runtime, ignore_errors=True)
    runtime.mkdir(exist_ok=True)
    with ExitStack() as stack:
        memory = stack.enter_context(_mapped(ram))
        for number in range(count):
            vm = _copy(sockets / f"vm{number:03}.qmp", ram, memory, original)
            stack.enter_context(closing(vm))
        stack.enter_context(_ticking(memory, original.jiffies))
        watch = stack.enter_context(closing(_Watch(sockets, cores, runtime)))
        marked = watch.wait("marked", count) - watch.started
        workers = watch.workers()
        cpu = sum(map(cpu_seconds, workers)) / count
        own, shared = (total // count for total in _memory(workers))
        every = [*workers, watch.process.pid]
        before = sum(map(cpu_seconds, every))
        time.sleep(_REST)
        rest = (sum(map(cpu_seconds, every)) - before) / _REST / count
        died = time.monotonic()
        memory[original.panic_cpu : original.panic_cpu + 4] = bytes(4)
        named = _wait_for_files(cores, count) - died
        finished = watch.wait("death", count) - died
    files = [*cores.glob("*.core")]
    size = files[0].stat().st_size
    plain = _write_plainly(files, folder)
    return Fleet(
        count, known, marked, cpu, own, shared, rest, named, finished, plain, size
    )


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        yield memory


def _copy(path: Path, ram: Path, memory: mmap.mmap, original: _Original) -> FakeQemu:
    vm = FakeQemu(path, 4096)
    vm.size, vm.ram, vm.file = len(memory), memory, ram
    layout = (
        'FlatView #0\n AS "memory", root: system\n Root memory region: system\n'
        f"  {0:016x}-{vm.size - 1:016x} (prio 0, ram): pc.ram KVM\n"
    )
    vm.hmp["info"] = lambda line: original.registers if "registers" in line else layout
    return vm


@contextmanager
def _ticking(memory: mmap.mmap, jiffies: int) -> Iterator[None]:
    """Let the kernel's clock tick, by which it is known to run."""
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(_TICK):
            now = int.from_bytes(memory[jiffies : jiffies + 4], "little") + _JIFFIES
            memory[jiffies : jiffies + 4] = (now & 0xFFFFFFFF).to_bytes(4, "little")

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class _Watch:
    """``kmemdump watch``, and when it reported what."""

    def __init__(self, sockets: Path, cores: Path, runtime: Path) -> None:
        self.started = time.monotonic()
        argv = [*KMEMDUMP, "watch", str(sockets), "-o", str(cores), "--json"]
        self.process = subprocess.Popen(
            # Frozen memory looks like a hang.
            [*argv, "--hang-after", "0", "--keep", "1000"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "RUNTIME_DIRECTORY": str(runtime)},
        )
        self._times: dict[str, list[float]] = {}
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            name = json.loads(line).get("event")
            self._times.setdefault(name, []).append(time.monotonic())

    def wait(self, event: str, count: int) -> float:
        """Return when an event was reported for the last of so many VMs."""
        deadline = time.monotonic() + _PATIENCE
        while len(self._times.get(event, ())) < count:
            if time.monotonic() > deadline or self.process.poll() is not None:
                seen = {name: len(times) for name, times in self._times.items()}
                raise TargetError(f"{count} times {event}: not seen among {seen}")
            time.sleep(0.01)
        return self._times[event][count - 1]

    def workers(self) -> list[int]:
        """Return the processes of the VMs: those that the server forked."""
        parents = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue  # It has ended.
            parents[int(path.parent.name)] = int(fields[1])
        ours = [pid for pid, parent in parents.items() if parent == self.process.pid]
        return [pid for pid, parent in parents.items() if parent in ours]

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


def _memory(pids: Sequence[int]) -> tuple[int, int]:
    """Return the bytes that processes have for themselves, and with others."""
    own = shared = 0
    for pid in pids:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        for kind, size in re.findall(r"^(Private|Shared)_\w+: +(\d+) kB", text, re.M):
            if kind == "Private":
                own += int(size) << 10
            else:
                shared += int(size) << 10
    return own, shared


def _wait_for_files(cores: Path, count: int) -> float:
    """Return when each VM had a file."""
    deadline = time.monotonic() + _PATIENCE
    while len([*cores.glob("*.core")]) < count:
        if time.monotonic() > deadline:
            raise TargetError(f"{cores}: fewer than {count} core images")
        time.sleep(0.005)
    return time.monotonic()


def _write_plainly(files: Sequence[Path], folder: Path) -> float:
    """Return in what time as many files are written and synced, one by one."""
    data = files[0].read_bytes()
    started = time.monotonic()
    for number in range(len(files)):
        path = folder / f"plain-{number}"
        with open(path, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    seconds = time.monotonic() - started
    for number in range(len(files)):
        (folder / f"plain-{number}").unlink()
    return seconds
