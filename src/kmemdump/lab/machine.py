# SPDX-License-Identifier: GPL-2.0-or-later
"""A virtual machine with a kernel to be crashed."""

import logging
import re
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from kmemdump.errors import TargetError
from kmemdump.formats.cpio import Entry
from kmemdump.installing import require_programs
from kmemdump.lab.guest_python import kmemdump_entries
from kmemdump.lab.initramfs import make_initramfs
from kmemdump.lab.machine_folder import MachineFolder, copy_sparse, dig_holes
from kmemdump.lab.packages import PackageCache
from kmemdump.lab.qemu_end import describe_end
from kmemdump.lab.serial_port import SerialPort, SerialTimeoutError
from kmemdump.lab.setup import Setup, prepare_firmware, qemu_arguments
from kmemdump.targets.qmp_client import QmpClient

__all__ = ["PANIC_ENDS", "BootPanicError", "Machine"]

_READY = "GUEST-READY"  # Both written by guest/init.
_DONE = "GUEST-DONE "
_QMP_TIMEOUT = 30.0
"""Seconds that QEMU may take for each answer; the host may be busy."""
_OUTBOX = 512 << 20
"""Maximum bytes of a file fetched from a guest; unused, they take no room."""

PANIC_ENDS = re.compile(r"---\[ end Kernel panic|Rebooting in \d+ seconds")
"""What a kernel logs at the end of a panic."""

_BOOTS = 2
"""
Attempts to boot. With more emulated CPUs than real ones, a kernel panics now and then
in its first seconds ("Fatal exception in interrupt", QEMU 7.2, 6.12 with 8 CPUs).
"""

_logger = logging.getLogger(__name__)


class BootPanicError(TargetError):
    """The kernel of a machine panicked while it booted."""


class Machine:
    """
    A QEMU process with a Debian kernel in it.

    As a context manager it boots on entry and is gone on exit. If Python
    dies without an exit, the kernel kills QEMU. It also does so when the *thread*
    that started the machine ends, so start it in one that stays.

    >>> cache = PackageCache(default_folder(os.environ))
    >>> with Machine(cache, Setup(cache.kernel("6.1"))) as machine:
    ...     print(machine.run("uname -r"))
    6.1.0-56-cloud-amd64

    :param cache: Where busybox comes from.
    :param setup: What the machine is made of.
    :param timeout: Seconds that the boot may take.
    """

    def __init__(
        self, cache: PackageCache, setup: Setup, *, timeout: float = 300
    ) -> None:
        self.setup = setup
        self._cache = cache
        self._timeout = timeout
        self._folder: MachineFolder | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._control: QmpClient | None = None
        self._serial_port: SerialPort | None = None

    def __enter__(self) -> Self:
        self.boot()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def boot(self) -> None:
        """
        Start QEMU, and wait until the guest has booted and made its tasks.

        :raises UnsupportedError: If QEMU is not installed.
        :raises TargetError: If the guest does not boot; the machine is closed then.
        """
        for attempt in range(_BOOTS):
            try:
                self.start()
                self.wait_ready()
                break
            except BootPanicError as e:
                self.close()
                if attempt == _BOOTS - 1:
                    raise
                _logger.warning("%s; booting it again", e)
            except BaseException:
                self.close()
                raise

    def start(self, snapshot: Path | None = None) -> None:
        """
        Start QEMU, without waiting for the guest.

        :param snapshot: Folder with the files of a machine that this one goes on from;
            QEMU then waits for its migration stream.
        :raises UnsupportedError: If QEMU is not installed.
        :raises TargetError: If it does not start.
        """
        arch = self.setup.architecture
        require_programs(arch.qemu, "setpriv")
        ram = self.setup.memory << 20 if self.setup.share else 0
        self._folder = MachineFolder(len(self.initramfs) + ram)
        (self.folder / "initramfs").write_bytes(self.initramfs)
        if snapshot is None:
            if self.setup.firmware:
                prepare_firmware(self.setup, self.folder)
        else:
            for path in snapshot.iterdir():
                copy_sparse(path, self.folder / path.name)
        self._make_disks()
        guest, guest_inside = socket.socketpair()
        control, control_inside = socket.socketpair()
        self._serial_port = SerialPort(guest, "the guest's second serial port")
        inherited = (
            guest_inside.fileno(),
            control_inside.fileno(),
            self._folder.descriptor,
        )
        arguments = qemu_arguments(
            self.setup, self.folder, guest=inherited[0], control=inherited[1]
        )
        if snapshot is not None:
            arguments += ["-incoming", "defer"]
        with guest_inside, control_inside, open(self.folder / "log", "wb") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", arch.qemu, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=inherited,
            )
        try:
            self._control = QmpClient(control, _QMP_TIMEOUT)
        except TargetError as e:
            ended = describe_end(self._process, self._folder)
            problem = f"qemu does not start: {self._last_words()}"
            raise TargetError(f"{problem} ({ended})" if ended else problem) from e

    def _make_disks(self) -> None:
        sizes = {"disk": self.setup.disk << 20}
        if self.setup.disk_log:
            (self.folder / "disk-log").touch()
        if self.setup.python is not None:
            sizes["outbox"] = _OUTBOX
        for name, size in sizes.items():
            if size:
                with open(self.folder / name, "ab") as file:  # A snapshot's is there.
                    file.truncate(size)

    def wait_ready(self) -> None:
        """
        Wait until the guest has booted and made its tasks.

        :raises BootPanicError: If its kernel panics instead.
        :raises TargetError: If that takes too long.
        """
        deadline = time.monotonic() + self._timeout
        try:
            while not self._is_ready(deadline):
                pass
        except BootPanicError:
            raise
        except TargetError as e:
            raise TargetError(
                f"kernel {self.setup.kernel.release} did not boot{self._why()}; "
                f"qemu said: {self._last_words()}; "
                f"the guest's last line: {self._last_line()}"
            ) from e

    def _why(self) -> str:
        assert self._process is not None
        assert self._folder is not None
        ended = describe_end(self._process, self._folder)
        return f": {ended}" if ended else f" in {self._timeout:g} s"

    def _is_ready(self, deadline: float) -> bool:
        now = time.monotonic()
        try:
            return self.serial_port.read(min(deadline, now + 1)) == _READY
        except SerialTimeoutError:
            if PANIC_ENDS.search(self.console):
                raise BootPanicError(
                    f"kernel {self.setup.kernel.release} panicked in its boot; "
                    f"the guest's last line: {self._last_line()}"
                ) from None
            if now >= deadline:
                raise
            return False

    def _last_line(self) -> str:
        return (self.console.strip().splitlines() or ["nothing"])[-1]

    def run(self, command: str, *, timeout: float = 60) -> str:
        """
        Run a shell command in the guest and return what it prints.

        :param command: One line, run by process 1 of the guest.
        :raises TargetError: If it fails, or does not end in time.
        """
        self.send(command)
        deadline = time.monotonic() + timeout
        lines = []
        while not (line := self.serial_port.read(deadline)).startswith(_DONE):
            lines.append(line)
        output = "\n".join(lines)
        if line != f"{_DONE}0":
            raise TargetError(f"the guest's {command!r} failed: {output}")
        return output

    def send(self, command: str) -> None:
        """Have the guest run a shell command that is not expected to end."""
        self.serial_port.write(command)

    def fetch(self, name: str, path: Path) -> None:
        """
        Copy a file out of the guest, which must have Python.

        :param name: In the guest.
        :param path: Here.
        :raises TargetError: If the guest cannot read it, or it is too large.
        """
        size = int(self.run(f"wc -c <{name}"))
        if size > _OUTBOX:
            raise TargetError(f"the guest's {name} has {size} bytes, too many")
        self.run(f"dd if={name} of=/dev/vdb bs=1M conv=fsync 2>/dev/null", timeout=300)
        with open(self.folder / "outbox", "rb") as source, open(path, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
            target.truncate(size)

    def pause(self) -> None:
        """Stop the machine's CPUs; they burn ours even when the guest is dead."""
        self.control.execute("stop")

    def resume(self) -> None:
        """Let the machine's CPUs go on."""
        self.control.execute("cont")

    def full_dump(self, path: Path, *, format: str = "elf") -> None:
        """
        Have QEMU write the whole memory, and registers, to a file.

        The machine stands still meanwhile. 4 GiB take about 20 s.

        :param path: Replaced if it exists.
        :param format: ``elf``, ``kdump-zlib``, or another format of QEMU.
        """
        path.unlink(missing_ok=True)  # QEMU makes it read-only.
        protocol = f"file:{path.absolute()}"
        self.control.execute(
            "dump-guest-memory",
            {"paging": False, "protocol": protocol, "format": format},
            timeout=900,
        )
        dig_holes(path)

    def close(self) -> None:
        """Kill QEMU and remove what it leaves."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._control is not None:
            self._control.close()
        if self._serial_port is not None:
            self._serial_port.close()
        if self._folder is not None:
            self._folder.close()
        self._process = self._control = self._serial_port = self._folder = None

    @property
    def control(self) -> QmpClient:
        """A QMP monitor for the lab alone."""
        if self._control is None:
            raise TargetError("the machine is not started")
        return self._control

    @property
    def folder(self) -> Path:
        """Where the machine's files are."""
        if self._folder is None:
            raise TargetError("the machine is not started")
        return self._folder.path

    @property
    def qmp(self) -> Path:
        """The QMP socket for kmemdump; for one client at a time."""
        return self.folder / "qmp"

    @property
    def ram(self) -> Path | None:
        """The file that is the guest's RAM, if it is shared."""
        return self.folder / "ram" if self.setup.share else None

    @property
    def pid(self) -> int:
        """Process id of QEMU."""
        if self._process is None:
            raise TargetError("the machine is not started")
        return self._process.pid

    @property
    def console(self) -> str:
        """What the guest wrote to its first serial port up to now."""
        try:
            return (self.folder / "console").read_text(errors="replace")
        except FileNotFoundError:  # QEMU has not made it yet.
            return ""

    @property
    def serial_port(self) -> SerialPort:
        """The guest's second serial port, over which it takes commands."""
        if self._serial_port is None:
            raise TargetError("the machine is not started")
        return self._serial_port

    @cached_property
    def initramfs(self) -> bytes:
        """The guest's root file system."""
        setup = self.setup
        modules = {name: setup.kernel.module(name) for name in setup.modules}
        if setup.module is not None:
            modules[setup.module.stem] = setup.module.read_bytes()
        return make_initramfs(
            self._cache.busybox(setup.architecture).read_bytes(),
            modules,
            port=setup.architecture.port,
            tasks=setup.tasks,
            random_mib=setup.random,
            more=_more_entries(setup),
        )

    def _last_words(self) -> str:
        text = (self.folder / "log").read_text(errors="replace")
        lines = text.strip().splitlines() or ["nothing"]
        return lines[-1]


def _more_entries(setup: Setup) -> Iterator[Entry]:
    yield Entry("files", stat.S_IFDIR | 0o755)
    for path in setup.files:
        yield Entry(f"files/{path.name}", stat.S_IFREG | 0o755, path.read_bytes())
    if setup.python is not None:
        yield from kmemdump_entries()
