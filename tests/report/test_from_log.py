# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports of mere logs."""

import io
import json
import sys

import pytest

from kmemdump.cli import main
from kmemdump.errors import TargetError
from kmemdump.logs.read import parse_log
from kmemdump.report.from_log import gather_from_log
from rigs.console_logs import log_files
from rigs.schema import check_schema

BANNER = "[    0.000000] Linux version {} (a@b) (gcc) #1 SMP Debian {}\n"
OOPS = """\
[    0.000100] Kernel command line: root=/dev/vda quiet
[    0.000200] DMI: QEMU Standard PC (Q35 + ICH9, 2009), BIOS 1.16.2-1 04/01/2014
[   65.100000] BUG: kernel NULL pointer dereference, address: 0000000000000008
[   65.100001] #PF: supervisor write access in kernel mode
[   65.100002] Oops: 0002 [#1] PREEMPT SMP NOPTI
[   65.100003] CPU: 1 PID: 77 Comm: sh Tainted: G        W  OE      6.1.0-9 #1 Debian
[   65.100004] RIP: 0010:lab_null+0x5/0x10 [kmemdump_lab]
[   65.100005] Code: 90 90 0f 1f 44 00 00 <c7> 04 25 08 00 00 00 01 00 00 00 c3
[   65.100006] RSP: 0018:ffffc9000e01f4a0 EFLAGS: 00010246
[   65.100007] RAX: 0000000000000001 RBX: ffff88800d986800 RCX: 0000000000000000
[   65.100008] Call Trace:
[   65.100009]  <TASK>
[   65.100010]  ? __die+0x1/0x2
[   65.100011]  lab_write+0x28/0x320 [kmemdump_lab]
[   65.100012]  vfs_write+0x17/0x99
[   65.100013]  </TASK>
[   65.100014] RIP: 0033:0x7f0000000000
[   65.100015] RAX: ffffffffffffffda RBX: 0000000000000042 RCX: 00007f0000000000
[   65.100016] Modules linked in: kmemdump_lab(OE) virtio_net
[   65.100017] ---[ end trace 0000000000000000 ]---
"""
END = "[   65.200000] Kernel panic - not syncing: Fatal exception\n"


def report_of(text, name="a.log"):
    return gather_from_log(parse_log(text.encode(), name))


def test_a_report_of_a_log():
    report = report_of(BANNER.format("6.1.0-9", "6.1") + OOPS + END)
    check_schema(json.loads(json.dumps(report.to_json())))
    assert "lab_null" in report.cause.sentence
    assert report.cause.fatal
    kernel = report.kernel
    assert (kernel.release, kernel.version) == ("6.1.0-9", "#1 SMP Debian 6.1")
    assert (kernel.machine, kernel.command_line) == ("x86_64", "root=/dev/vda quiet")
    assert report.hardware.name == "QEMU Standard PC (Q35 + ICH9, 2009)"
    assert report.hardware.bios == "1.16.2-1 04/01/2014"
    assert [item.letter for item in report.taints] == ["W", "O", "E"]
    modules = {item.name: [x.letter for x in item.taints] for item in report.modules}
    assert modules == {"kmemdump_lab": ["O", "E"], "virtio_net": []}
    assert report.time.uptime == pytest.approx(65.2)
    assert report.missing == ()


def test_registers_code_and_trace():
    report = report_of(OOPS)
    registers = {item.name: item.value for item in report.fault.registers}
    assert registers["RAX"] == 1  # The kernel's, not the program's.
    assert registers["RSP"] == 0xFFFFC9000E01F4A0
    failed = next(item for item in report.fault.code if item.offset == 0)
    assert failed.text == "mov dword ptr [8], 1"
    assert [item.text for item in report.fault.code][:3] == [
        "nop",
        "nop",
        "nop dword ptr [rax + rax]",
    ]
    assert report.fault.code[-1].text == "ret"
    shown = [(x.function, x.offset, x.module, x.reliable) for x in report.trace]
    assert shown == [
        ("lab_null", 5, "kmemdump_lab", True),
        ("__die", 1, None, False),
        ("lab_write", 0x28, "kmemdump_lab", True),
        ("vfs_write", 0x17, None, True),
    ]


def test_without_capstone(monkeypatch):
    monkeypatch.setitem(sys.modules, "capstone", None)
    fault = report_of(OOPS).fault
    assert fault.problem == (
        "disassembly needs capstone: pip install 'kmemdump[disassembly]'"
    )
    assert [item.offset for item in fault.code] == [-7, 0]
    assert fault.code[1].code.startswith("c7 04 25 08")


def test_words_of_arm64_stand_in_memory_in_reverse():
    text = (
        "[   65.1] x\n"
        "[   65.100000] Unable to handle kernel NULL pointer dereference at virtual "
        "address 0000000000000000\n"
        "[   65.100001] CPU: 0 PID: 1 Comm: init Not tainted 6.1.0 #1\n"
        "[   65.100002] pc : lab_null+0x8/0x20\n"
        "[   65.100003] sp : ffff800008003ca0\n"
        "[   65.100004] x29: ffff800008003ca0 x28: 0000000000000000\n"
        "[   65.100005] Code: d503201f 52800020 (b9000000) d65f03c0\n"
    )
    report = report_of(text)
    assert report.kernel.machine == "aarch64"
    texts = {item.offset: item.text for item in report.fault.code}
    assert texts == {-8: "nop", -4: "mov w0, #1", 0: "str w0, [x0]", 4: "ret"}


def test_the_boot_that_died_counts():
    calm = BANNER.format("6.2", "6.2") + "[    1.000000] calm\n"
    died = BANNER.format("6.1.0-9", "6.1") + OOPS + END
    for text, number in ((calm + died + calm, 2), (died + calm, 1), (died + died, 2)):
        report = report_of(text)
        assert report.kernel.release == "6.1.0-9"
        boots = text.count("Linux version")
        assert report.cause.evidence[-1] == (
            f"the log covers {boots} boots; this report is of number {number}"
        )
    assert report_of(calm).cause.evidence == ()


def test_nothing_wrong():
    report = report_of(BANNER.format("6.1", "6.1") + "[    1.000000] calm\n" * 9)
    assert "nothing wrong" in report.cause.sentence
    assert not report.cause.fatal
    assert report.cause.signature is None
    check_schema(report.to_json())


def test_who_waits_for_whom():
    report = report_of(
        "[    1.000000] INFO: task c:3 blocked on a mutex likely owned by task d:4.\n"
        "[    1.000001] INFO: task a:1 blocked on a mutex likely owned by task b:2.\n"
        "[    1.000002] INFO: task b:2 is blocked on an rw-semaphore likely owned by "
        "task c:3.\n"
        "[    1.000003] INFO: task e:5 is blocked on a mutex, but the owner is not "
        "found.\n"
        "[    1.000004] Showing all locks held in the system:\n"
        "[    1.000005] 1 lock held by khungtaskd/28:\n"
        "[    1.000006]  #0: ffffffff8cf3b4e0 (rcu_read_lock){....}-{1:2}, at: "
        "debug_show_all_locks+0x53/0x260\n"
        "[    1.000007] 2 locks held by b/2:\n"
        "[    1.000008]  #0: ffff88801fe9f4d8 (&ep->mtx){+.+.}-{3:3}, at: f+0x1/0x2\n"
        "[    1.000009]  #1: ffff88801fe9f4d9 (sb#4){.+.+}-{0:0}, at: g+0x1/0x2\n"
    )
    chain = [(x.waiter.comm, x.owner.comm if x.owner else None) for x in report.waits]
    assert chain == [("a", "b"), ("b", "c"), ("c", "d"), ("e", None)]
    assert report.waits[1].lock == "rw-semaphore"
    held = [(x.task.comm, x.lock, x.at) for x in report.locks]
    assert held == [
        ("khungtaskd", "rcu_read_lock", "debug_show_all_locks+0x53/0x260"),
        ("b", "&ep->mtx", "f+0x1/0x2"),
        ("b", "sb#4", "g+0x1/0x2"),
    ]


def test_verb(tmp_path, capsys, monkeypatch):
    file = tmp_path / "serial.log"
    file.write_text(OOPS + END)
    assert main(["report", str(file)]) == 0
    assert "lab_null" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(OOPS.encode())))
    assert main(["report", "-", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["source"] == "standard input"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(bytes(99))))
    assert main(["report", "-"]) == 3
    assert "standard input: is not text, expected a kernel log" in (
        capsys.readouterr().err
    )
    page = tmp_path / "r.html"
    assert main(["report", str(file), "--html", str(page)]) == 0
    assert "lab_null" in page.read_text()


def test_reports_of_real_logs():
    """The sources are hostile: each gives a report as documented."""
    for name, data in sorted(log_files("syzkaller").items())[::60]:
        log = parse_log(data, name)
        if b"fatal error: out of memory" in data and not log.is_marked:
            with pytest.raises(TargetError, match="no line of it is a kernel's"):
                gather_from_log(log)  # Of a program, written in Go.
            continue
        report = gather_from_log(log)
        check_schema(json.loads(json.dumps(report.to_json())))
        assert report.to_text()
