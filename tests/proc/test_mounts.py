# SPDX-License-Identifier: GPL-2.0-or-later
"""What is mounted where."""

import os

import pytest

from kmemdump.errors import FormatError, TargetError
from kmemdump.proc.mounts import Mount, parse_mountinfo, read_mounts

TEXT = r"""36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:2 - ext3 /dev/r rw,errors=x
40 29 0:33 / /dev/hugepages rw - hugetlbfs hugetlbfs rw,pagesize=2M
41 29 8:17 / /srv/old\040disk\134\011\012 rw,relatime shared:7 - xfs /dev/sd\040b rw
42 29 0:44 / /run/none rw - tmpfs  rw
"""


def test_fields():
    old, huge, spaces, nameless = parse_mountinfo(TEXT, "mountinfo")
    assert old == Mount((98, 0), "/mnt1", "/mnt2", "ext3", ("rw", "errors=x"))
    assert (huge.kind, huge.options) == ("hugetlbfs", ("rw", "pagesize=2M"))
    assert (spaces.place, spaces.kind) == ("/srv/old disk\\\t\n", "xfs")
    assert (nameless.place, nameless.options) == ("/run/none", ("rw",))


def test_our_own():
    mounts = read_mounts()
    [found] = [it for it in mounts if it.place == "/proc"][-1:]
    device = os.stat("/proc").st_dev
    assert found.kind == "proc"
    assert found.device == (os.major(device), os.minor(device))
    assert [it for it in mounts if it.place == "/"]


@pytest.mark.parametrize("line", ["", "x", "36 35 98:0 / /mnt rw ext3 /dev/root rw"])
def test_something_else(line):
    with pytest.raises(FormatError, match=r"line 5: .*expected a mount"):
        parse_mountinfo(f"{TEXT}{line}\n", "mountinfo")


def test_too_many(monkeypatch):
    monkeypatch.setattr("kmemdump.proc.mounts._MAX_MOUNTS", 3)
    with pytest.raises(FormatError, match="more than 3 mounts"):
        parse_mountinfo(TEXT, "mountinfo")


def test_no_such_file(tmp_path):
    with pytest.raises(TargetError, match="proc/self/mountinfo: No such file"):
        read_mounts(tmp_path)
