# SPDX-License-Identifier: GPL-2.0-or-later
"""
Run in a guest that has KVM: a guest of it, and a watch of that one.

A program for the guest's Python, with nothing of the tests: it prints what happens, and
the test that started it compares. ``/run/vm`` has ``vmlinuz``, ``initramfs``, and gets
the core images.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

VM = Path("/run/vm")
PATIENCE = 900.0
KMEMDUMP = (sys.executable, "-m", "kmemdump")


def say(what: str) -> None:
    print(f"INSIDE {what}", flush=True)


def connect(path: Path) -> socket.socket:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            found = socket.socket(socket.AF_UNIX)
            found.connect(str(path))
            return found
        except OSError:
            found.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


class Lines:
    """A socket that is read in lines."""

    def __init__(self, path: Path) -> None:
        self.socket = connect(path)
        self._file = self.socket.makefile("r")

    def wait_for(self, wanted: str) -> str:
        while wanted not in (line := self._file.readline()):
            if not line:
                raise EOFError(f"no {wanted}")
        return line

    def send(self, text: str) -> None:
        self.socket.sendall(text.encode() + b"\n")


class Monitor:
    """A QMP monitor of its own."""

    def __init__(self, path: Path) -> None:
        self._lines = Lines(path)
        self._lines.wait_for('"QMP"')
        self.execute("qmp_capabilities")

    def execute(self, command: str) -> object:
        self._lines.send(json.dumps({"execute": command}))
        return json.loads(self._lines.wait_for('"return"'))["return"]


def qemu(machine: str) -> subprocess.Popen[bytes]:
    command = ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-smp", "2"]
    command += ["-M", machine, "-m", "384", "-nodefaults", "-display", "none"]
    command += ["-action", "panic=pause,reboot=shutdown,shutdown=pause"]
    command += ["-serial", f"file:{VM}/console"]
    command += ["-serial", f"unix:{VM}/guest,server=on,wait=off"]
    for name in ("qmp", "control"):
        command += ["-qmp", f"unix:{VM}/{name},server=on,wait=off"]
    command += ["-kernel", str(VM / "vmlinuz"), "-initrd", str(VM / "initramfs")]
    command += ["-append", "console=ttyS0 panic=0"]
    return subprocess.Popen(command)


class Watch:
    """A ``kmemdump watch``."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*KMEMDUMP, "watch", "--json", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if '"samples"' not in line:
                say(f"watch {line.strip()}")
            self.lines.append(line)

    def wait_for(self, wanted: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not any(wanted in line for line in self.lines):
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise TimeoutError(f"no {wanted!r}")
            time.sleep(0.2)


def main() -> None:
    machine = qemu(sys.argv[1])
    try:
        guest = Lines(VM / "guest")
        guest.wait_for("GUEST-READY")
        say("booted")
        control = Monitor(VM / "control")
        say(f"kvm {json.dumps(control.execute('query-kvm'))}")
        done = subprocess.run(
            [*KMEMDUMP, "capture", f"pid:{machine.pid}", "-o", str(VM / "pid.core")],
            capture_output=True,
            text=True,
        )
        say(f"pid {done.returncode} {done.stdout.strip()} {done.stderr.strip()}")
        folder = str(VM / "cores")
        options = ("--hang-after", "10", "--interval", "60", "--then", "continue")
        watch = Watch(str(VM / "qmp"), "-o", folder, *options)
        watch.wait_for("marked")
        say(f"status {json.dumps(control.execute('query-status'))}")
        guest.send("echo 1 >/proc/sys/kernel/unknown_nmi_panic")
        guest.wait_for("GUEST-DONE 0")
        parameter = "/sys/module/kmemdump_lab/parameters/die"
        guest.send(f"sh -c 'echo spin >{parameter}' &")
        watch.wait_for("frozen: ")
        say("frozen")
        control.execute("inject-nmi")
        watch.wait_for("panic")
        deadline = time.monotonic() + PATIENCE
        while len(list(Path(folder).glob("*.core"))) < 2:
            if time.monotonic() > deadline:
                raise TimeoutError("no second core image")
            time.sleep(0.5)
        watch.process.terminate()
        say(f"ended {watch.process.wait(PATIENCE)}")
        for core in sorted(Path(folder).glob("*.core")):
            say(f"core {core}")
        os.sync()
    finally:
        machine.kill()


if __name__ == "__main__":
    main()
