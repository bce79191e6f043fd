# SPDX-License-Identifier: GPL-2.0-or-later
"""A report as a mail to the kernel's mailing lists."""

from dataclasses import replace

from kmemdump.diagnosis.records import Cpu, Frame
from report.test_from_log import BANNER, END, OOPS, report_of

REPORT = report_of(BANNER.format("6.1.0-9", "6.1.55-1") + OOPS + END)


def test_what_a_maintainer_needs():
    lines = REPORT.to_mail().splitlines()
    assert lines[0] == REPORT.cause.sentence
    assert "Kernel: 6.1.0-9 #1 SMP Debian 6.1.55-1 x86_64" in lines
    assert (
        "Hardware: QEMU Standard PC (Q35 + ICH9, 2009), BIOS 1.16.2-1 04/01/2014"
        in lines
    )
    assert "[   65.100004] RIP: 0010:lab_null+0x5/0x10 [kmemdump_lab]" in lines
    assert lines[-1] == "[   65.100017] ---[ end trace 0000000000000000 ]---"


def test_source_lines_as_decode_stacktrace_puts_them():
    frames = (
        Frame(1, "lab_null", 5, "kmemdump_lab", "drivers/lab.c:77"),
        Frame(2, "vfs_write", 0x17, None, "fs/read_write.c:684"),
    )
    mail = replace(REPORT, cpus=(Cpu(1, online=True, frames=frames),)).to_mail()
    assert "] RIP: 0010:lab_null (drivers/lab.c:77) [kmemdump_lab]\n" in mail
    assert "]  vfs_write (fs/read_write.c:684)\n" in mail
    assert "]  lab_write+0x28/0x320 [kmemdump_lab]\n" in mail


def test_nothing_hidden():
    evil = OOPS.replace("Comm: sh", "Comm: \x9b31m\u202e")
    mail = report_of(evil).to_mail()
    assert "\u202e" not in mail
    assert "\\u202e" in mail
