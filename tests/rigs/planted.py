# SPDX-License-Identifier: GPL-2.0-or-later
"""
Secrets in a guest: of each kind of data one that tests know and look for.

Also a program: ``python tests/rigs/planted.py KERNEL`` prints in what of each is found.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from kmemdump.lab import (
    CrashType,
    Machine,
    PackageCache,
    Setup,
    build_module,
    crash_guest,
    default_folder,
)
from kmemdump.marking.capture import capture
from kmemdump.opening import open_target
from kmemdump.redaction.policy import POLICIES, load_policy
from kmemdump.redaction.redact import redact
from rigs.snapshots import Snapshots

__all__ = [
    "ADDRESS",
    "KINDS",
    "WORD",
    "count",
    "memory_of",
    "needles",
    "needles_left",
    "plant",
    "secret",
]

WORD = "Qz7xW9kJ"
"""A part of each secret."""
ADDRESS = "10.77.88.99"
KINDS: Mapping[str, str] = {
    "argv": "argument of a program",
    "envi": "environment of a program",
    "heap": "heap of a program",
    "page": "contents of a file (page cache)",
    "file": "name of a file",
    "dirn": "name of a folder",
    "mntd": "device of a mount",
    "keyd": "description of a key",
    "keyc": "payload of a key",
    "pipe": "contents of a pipe",
    "sock": "contents of a socket",
    "unix": "name of a Unix socket",
    "core": "setting of the kernel (core_pattern)",
    "doma": "NIS domain",
    "host": "host name",
    "logl": "line of the kernel log",
}
"""Kinds of secrets that are text of their own, and what they are."""
_OTHERS = {
    "comm": ("name of a task", WORD.encode() + b"\0"),
    "regs": ("registers of a program", f"SECRET-regs-{WORD}"[8:16].encode()),
    "addr": ("IP address", bytes(map(int, ADDRESS.split(".")))),
    "wide": ("text in UTF-16", WORD.encode("utf-16-le")),
}
_SOURCE = Path(__file__).with_name("plant.c")
_FLAGS = (
    *("-O1", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector"),
    *("-fno-pic", "-no-pie", "-mno-sse", "-s", "-Wl,--build-id=none", "-Wl,-N"),
)
_PIECE = 200
"""Bytes of the program in one command."""


def secret(kind: str) -> str:
    """Return the secret of a kind."""
    return f"SECRET-{kind}-{WORD}"


def needles() -> dict[str, bytes]:
    """Return what to look for, by kind."""
    texts = {kind: secret(kind).encode() for kind in KINDS}
    return texts | {kind: data for kind, (_, data) in _OTHERS.items()}


def count(data: bytes) -> dict[str, int]:
    """Return how often each secret is in memory."""
    return {kind: data.count(needle) for kind, needle in needles().items()}


def needles_left(data: bytes) -> set[str]:
    """Return the kinds of secrets that are found, and whether a part of one is."""
    found = {kind for kind, number in count(data).items() if number}
    parts = {"SECRET": b"SECRET", "word": WORD.encode(), "written": ADDRESS.encode()}
    return found | {name for name, it in parts.items() if it in data}


def memory_of(core: Path) -> bytes:
    """Return all memory of a core image, also what is compressed in it."""
    with open_target(str(core)) as target:
        held = target.memory
        return b"".join(held.read(it.start, it.size) for it in held.ranges)


def plant(machine: Machine, folder: Path) -> None:
    """
    Plant a secret of each kind in a running guest, by a program and by its shell.

    :param folder: For the program.
    """
    program = folder / "plant"
    # It warns of a segment that is writable and executable.
    argv = ["gcc", *_FLAGS, str(_SOURCE), "-o", str(program)]
    subprocess.run(argv, check=True, capture_output=True)
    data = program.read_bytes()
    machine.run("cd /run")
    for start in range(0, len(data), _PIECE):
        text = "".join(f"\\{byte:03o}" for byte in data[start : start + _PIECE])
        machine.run(f"busybox printf '{text}' >>plant")
    machine.run("busybox chmod 755 plant")
    for kind, path in (
        ("host", "/proc/sys/kernel/hostname"),
        ("doma", "/proc/sys/kernel/domainname"),
        ("core", "/proc/sys/kernel/core_pattern"),
    ):
        machine.run(f"echo {secret(kind)} >{path}")
    machine.run(f"echo '{secret('logl')} from {ADDRESS}' >/dev/kmsg")
    machine.run(f"ip link set lo up; busybox ip addr add {ADDRESS}/32 dev lo")
    planting = f"SECRET_envi={secret('envi')} exec ./plant {WORD} {secret('argv')}"
    done = "busybox grep -q '^Uid:.31337' /proc/$!/status"  # The last that it asks for.
    machine.run(f"({planting}) & while ! {done}; do sleep 0.1; done; sleep 1")


def main(kernel: str) -> None:
    """Print how often each secret is found in what is kept of a dead machine."""
    cache = PackageCache(default_folder(os.environ))
    package = cache.kernel(kernel)
    setup = Setup(package, module=build_module(cache, package))
    snapshots = Snapshots(cache, cache.folder / "snapshots")
    found: dict[str, dict[str, int]] = {}
    with (
        tempfile.TemporaryDirectory() as name,
        snapshots.machine(setup) as machine,
    ):
        folder = Path(name)
        plant(machine, folder)
        crash_guest(machine, CrashType.PANIC)
        machine.pause()
        assert machine.ram is not None
        found["all memory"] = count(machine.ram.read_bytes())
        cores = {"with ps -a": ["ps -a"], "core image": []}
        for title, questions in cores.items():
            core = folder / "vm.core"
            with open_target(f"qmp:{machine.qmp}") as target:
                capture(target, questions=questions).save(core)
            found[title] = count(core.read_bytes())
        for policy in reversed(POLICIES):
            left = folder / f"{policy}.core"
            with open_target(str(core)) as target:
                redact(target, load_policy(policy)).save(left)
            found[policy] = count(left.read_bytes())
    print(f"{'':<40}" + "".join(f"{title:>12}" for title in found))
    meanings = {**KINDS, **{kind: words for kind, (words, _) in _OTHERS.items()}}
    for kind, words in meanings.items():
        print(f"{words:<40}" + "".join(f"{it[kind]:>12}" for it in found.values()))


if __name__ == "__main__":
    main(*sys.argv[1:])
