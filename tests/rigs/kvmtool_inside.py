# SPDX-License-Identifier: GPL-2.0-or-later
"""
Run in a guest that has KVM: a guest in kvmtool, which has no QMP, and a watch of it.

A program for the guest's Python, which has no more of the tests than it imports: it
prints what happens, and the test that started it compares. ``/run/vm`` has
``lkvm-static``, ``vmlinuz`` and ``initramfs``, and gets the core images. The guest
reads from its disk how to die: nothing else that kvmtool gives it is writable here.
"""

import os
import re
import subprocess
import time
from pathlib import Path

from rigs.kvm_inside import KMEMDUMP, PATIENCE, VM, Watch, say

DISK = VM / "disk"
_SECTOR = 512


def write_disk(word: str) -> None:
    DISK.write_bytes(f"{word}\n".encode().ljust(_SECTOR, b"\0"))


def start() -> subprocess.Popen[bytes]:
    write_disk("")
    command = [str(VM / "lkvm-static"), "run", "--name", "web1", "--cpus", "1"]
    command += ["--mem", "384", "--network", "mode=none", "--disk", str(DISK)]
    command += ["--kernel", str(VM / "vmlinuz"), "--initrd", str(VM / "initramfs")]
    command += ["--params", "console=ttyS0 panic=0 rdinit=/die-later"]
    _, terminal = os.openpty()  # It sets its standard input's modes.
    with open(VM / "console", "wb") as out:
        return subprocess.Popen(command, stdin=terminal, stdout=out, stderr=out)


def wait_for(file: Path, pattern: str, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + PATIENCE
    while True:
        text = file.read_text(errors="replace")
        if match := re.search(pattern, text):
            return match[0]
        if time.monotonic() > deadline or process.poll() is not None:
            raise TimeoutError(f"no {pattern!r}: {text[-2000:]}")
        time.sleep(0.5)


def main() -> None:
    vmm = start()
    try:
        console = VM / "console"
        wait_for(console, "GUEST-READY", vmm)
        say("booted")
        target = f"pid:{vmm.pid}"
        done = subprocess.run(
            [*KMEMDUMP, "capture", target, "-o", str(VM / "running.core")],
            capture_output=True,
            text=True,
        )
        say(f"capture {done.returncode} {done.stdout.strip()} {done.stderr.strip()}")
        options = ("--hang-after", "20", "--interval", "10")
        watch = Watch(target, "-o", str(VM / "cores"), *options)
        watch.wait_for("marked")
        watch.wait_for("refreshed")
        say(f"before {len(list((VM / 'cores').glob('*.core')))}")
        write_disk("panic")
        watch.wait_for('"core": "')
        watch.process.terminate()
        say(f"ended {watch.process.wait(PATIENCE)}")
        for core in (VM / "cores").glob("*.core"):
            say(f"core {core}")
        say(f"goes on {vmm.poll() is None}")
    finally:
        vmm.kill()


if __name__ == "__main__":
    main()
