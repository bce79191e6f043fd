# SPDX-License-Identifier: GPL-2.0-or-later
"""The parsers of logs, in all forms in which people have them."""

import json
from collections.abc import Iterator

from kmemdump.diagnosis.log_cause import diagnose_log
from kmemdump.diagnosis.log_line import LogLine
from kmemdump.errors import FormatError, TargetError
from kmemdump.formats.pstore import parse_pstore_part
from kmemdump.logs.log_text import LogText
from kmemdump.logs.read import parse_log
from rigs.parser import Parser

__all__ = ["LOG_PARSERS"]


def _lines(log: LogText) -> Iterator[LogLine]:
    for boot in log.boots:
        for number, line in enumerate(boot):
            yield LogLine(line.text, number)


def _log(data: bytes) -> None:
    try:
        log = parse_log(data, "log")
    except TargetError as error:
        raise FormatError("log", str(error)) from error
    diagnose_log(list(_lines(log)))


def _part(data: bytes) -> None:
    parse_pstore_part(data[1:], "part", packed=bool(data[:1] == b"Z"))


_CONSOLE = """\
[    1.5] Linux version 6.12.1 (me@here) #1 SMP
[ 1234.000250] BUG: kernel NULL pointer dereference, address: 0000000000000008
[ 1234.000260] CPU: 0 PID: 1 Comm: sh Tainted: G           OE
[ 1234.000270] RIP: 0010:lab_null+0x5/0x10 [kmemdump_lab]
[ 1234.000280] Call Trace:
[ 1234.000290]  ? die+0x1/0x2
[ 1234.000300]  do_syscall_64+0x3b/0x90
[ 1234.000310] Kernel panic - not syncing: Fatal exception
"""
_ARM = """\
[    1.0] Unable to handle kernel NULL pointer dereference at virtual address 00000000
[    1.1] Internal error: Oops: 5 [#1] SMP ARM
[    1.2] PC is at lab_null+0x10/0x20 [lab]
[    1.3] LR is at do_one+0x10/0x20
[    1.4] [<bf000010>] (lab_null [lab]) from [<c0101010>] (do_one+0x10/0x20)
"""
_ENTRY = {
    "__CURSOR": "s=1",
    "__REALTIME_TIMESTAMP": "1795846021000000",
    "__MONOTONIC_TIMESTAMP": "1300000000",
    "_BOOT_ID": "a" * 32,
    "_TRANSPORT": "kernel",
    "PRIORITY": "1",
    "MESSAGE": "BUG: soft lockup - CPU#0 stuck for 26s! [sh:1]",
}
_EXPORT = "".join(f"{name}={value}\n" for name, value in _ENTRY.items()) + "\n"

LOG_PARSERS = (
    Parser(
        "log",
        _log,
        (
            _CONSOLE.encode(),
            _ARM.encode(),
            _EXPORT.encode(),
            f"{json.dumps(_ENTRY)}\n".encode(),
            b"6,1,1000,-;Linux version 6.1\n1,2,2000,-;BUG: x\n SUBSYSTEM=pci\n",
        ),
        100_000,
    ),
    Parser("part of pstore", _part, (b" Panic#1 Part1\n<6>[    1.0] one\n",)),
)
