# SPDX-License-Identifier: GPL-2.0-or-later
"""A killed download ends whole, and what it leaves in the cache goes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kmemdump.lab import PackageCache
from rigs.fake_archive import OWN, FakeArchive

KERNEL = """
import signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup, for one, has it ignored.
from pathlib import Path
from kmemdump.lab import PackageCache
PackageCache(Path(sys.argv[1])).kernel("6.1")
"""
# Has sources, and downloads forever.
APT_GET = """#!/bin/sh
case "$*" in
*download*) echo $$ >{0}.new; mv {0}.new {0}; exec sleep 1000 ;;
*--print-uris*) echo "'http://a.test/d'" ;;
esac
"""


def runs(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_killed_download(how, tmp_path, monkeypatch):
    archive = FakeArchive(tmp_path / "archive")
    archive.add(OWN, "linux-image-6.1.0-9-cloud-amd64")
    started, folder = tmp_path / "started", tmp_path / "lab"
    (archive.folder / "bin/apt-get").write_text(APT_GET.format(started))
    monkeypatch.setenv("PATH", f"{archive.folder}/bin:{os.environ['PATH']}")
    with subprocess.Popen([sys.executable, "-c", KERNEL, folder]) as python:
        wait_until(lambda: started.exists() or python.poll() is not None)
        python.send_signal(how)
    wait_until(lambda: not runs(int(started.read_text())))
    left = set(folder.glob(".kmemdump-*"))
    assert len(left) == 2  # Of the entry, and of the download.
    for path in left:
        os.utime(path, (0, 0))
    PackageCache(folder).entry("another", Path.touch)
    assert not left & set(folder.iterdir())
