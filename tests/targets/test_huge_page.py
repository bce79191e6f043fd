# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of this machine that holds the list for a crash kernel."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kmemdump.errors import UnsupportedError
from kmemdump.targets.huge_page import open_huge_page

COUNT = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
USE = """
from kmemdump.backends.kdump import KdumpBackend
from kmemdump.memory.ranges import Region
from kmemdump.targets.huge_page import open_huge_page

page = open_huge_page()
backend = KdumpBackend(page, page.range)
backend.register(Region(3, "one", 0x1000, 64))
backend.describe(b"header", b"info")
first = page.range, page.read(*page.range)
page.close()
again = open_huge_page()
assert (again.range, again.read(*again.range)) == first
assert first[0].start % (2 << 20) == 0 and first[0].size == 2 << 20
assert first[1].startswith(b"kmemdump regions") and b"headerinfo" in first[1]
again.close()
again.path.unlink()
print("same page")
"""


@pytest.fixture
def pages():
    """Keep how many pages the machine sets aside."""
    if os.geteuid() != 0 or not COUNT.exists():
        pytest.skip("a huge page needs root and a kernel that has them")
    before = COUNT.read_text()
    yield
    COUNT.write_text(before)


def test_the_page_stays_when_its_user_is_gone(pages, tmp_path):
    mount = f"mount -t hugetlbfs -o pagesize=2M,mode=0700 none {tmp_path}"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mount} && "$0" -c "$1"', sys.executable, USE],
        capture_output=True,
        text=True,
    )
    if "mount:" in done.stderr or "unshare" in done.stderr:
        pytest.skip("no mounts here, as in a container")
    assert done.stdout == "same page\n", done.stderr


def test_says_what_to_mount(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text(
        "40 29 0:33 / /dev/hugepages rw - hugetlbfs hugetlbfs rw,pagesize=1024M\n"
    )
    with pytest.raises(UnsupportedError, match="mount -t hugetlbfs -o pagesize=2M"):
        open_huge_page(tmp_path)
