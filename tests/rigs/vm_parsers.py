# SPDX-License-Identifier: GPL-2.0-or-later
"""The parsers of what a VM's monitor and its host say."""

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from kmemdump.arch.architecture import arch_from_elf
from kmemdump.errors import FormatError, TargetError
from kmemdump.formats.iomem import parse_iomem
from kmemdump.formats.mtree import parse_mtree
from kmemdump.targets.qmp_client import QmpClient
from kmemdump.targets.qmp_registers import parse_registers
from kmemdump.watch.control.commands import make_command
from kmemdump.watch.qmp_events import interpret_event
from kmemdump.watch.vcpus import parse_vcpus
from rigs.parser import Parser

__all__ = ["VM_PARSERS"]

_MTREE = """\
FlatView #0
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
  0000000000000000-000000000009ffff (prio 0, ram): pc.ram KVM
  00000000000c0000-00000000000dffff (prio 1, rom): pc.rom
  0000000100000000-000000013fffffff (prio 0, ram): pc.ram @0000000010000000
"""
_NAMES = "RAX RBX RCX RDX RSI RDI RBP RSP R8 R9 R10 R11 R12 R13 R14 R15 RIP RFL"
_REGISTERS = (
    "CPU#0\n"
    + " ".join(f"{name}={i:016x}" for i, name in enumerate(_NAMES.split()))
    + " [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\n"
    + "".join(
        f"{name} =0010 ffffffff81000000 ffffffff 00af9b00\n"
        for name in ("ES", "CS", "SS", "DS", "FS", "GS")
    )
)
_GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7},'
    b' "package": ""}, "capabilities": ["oob"]}}\r\n'
    b'{"return": {}, "id": "__qmp#00000"}\r\n'
)
_EVENT = (
    b'{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"},'
    b' "timestamp": {"seconds": 1, "microseconds": 2}}\r\n'
)


def _text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: parse(data.decode("utf-8", "replace"))


def _registers(text: str) -> None:
    for machine in (62, 183):
        arch = arch_from_elf(machine)
        parse_vcpus(text, arch)
        with suppress(FormatError):
            parse_registers(text, arch, "vm")


def _event(data: bytes) -> None:
    try:
        event = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(event, dict):
        interpret_event(event)
        make_command(event, 1)


def _connection(data: bytes) -> None:
    """The bytes are all that a QMP server says."""
    ours, theirs = socket.socketpair()
    with theirs:
        # An input may be larger than a socket's buffer.
        threading.Thread(target=_say, args=(theirs, data), daemon=True).start()
        with suppress(TargetError), QmpClient(ours, timeout=1.0) as client:
            while (event := client.event(0.0)) is not None:
                interpret_event(event)
            client.status()


def _say(theirs: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)


VM_PARSERS = (
    Parser("mtree", _text(lambda it: parse_mtree(it, "vm")), (_MTREE.encode(),)),
    Parser("registers of a VM", _text(_registers), (_REGISTERS.encode(),)),
    Parser("qmp event", _event, (_EVENT, b'{"do": "capture", "path": "/x"}')),
    Parser("qmp connection", _connection, (_GREETING + _EVENT,), 5_000),
    Parser(
        "iomem",
        _text(parse_iomem),
        (b"00001000-0009fbff : System RAM\n  00002000-00003000 : Reserved\n",),
    ),
)
