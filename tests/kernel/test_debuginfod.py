# SPDX-License-Identifier: GPL-2.0-or-later
"""A debug file from a server of debuginfod, by elfutils' own client."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from kmemdump.cli import main
from kmemdump.errors import ExitCode, TargetError
from kmemdump.kernel.attach import debug_file_build_id
from kmemdump.kernel.vmlinux_search import find_vmlinux
from rigs.debuginfod import server

RELEASE = "6.12.0-of-nobody"
pytestmark = [
    pytest.mark.skipif(
        shutil.which(name) is None, reason=f"install {package}, which has {name}"
    )
    for name, package in (("debuginfod-find", "debuginfod"), ("gcc", "gcc"))
]


@pytest.fixture(scope="module")
def debug_file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    options = ("-g", "-nostdlib", "-static", "-Wl,--build-id", "-x", "c", "-")
    source = "void _start(void) { }"
    argv = ("gcc", *options, "-o", "vmlinux")
    subprocess.run(argv, input=source, text=True, cwd=folder, check=True)
    return folder / "vmlinux"


def environment(folder: Path, url: str) -> dict[str, str]:
    # Of a user with a careless umask, and a cache that is not yet there.
    cache = {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    return {"PATH": os.environ["PATH"], "DEBUGINFOD_URLS": url, **cache}


def test_it_is_fetched_once_and_for_this_user_alone(debug_file, tmp_path):
    build_id = debug_file_build_id(debug_file)
    before = os.umask(0)
    try:
        with server(debug_file) as (url, asked):
            environ = environment(tmp_path, url)
            for _ in range(2):
                found = find_vmlinux(RELEASE, build_id, environ)
                assert found.read_bytes() == debug_file.read_bytes()
    finally:
        os.umask(before)
    assert asked == [f"/buildid/{build_id}/debuginfo"]
    for path in (found, found.parent, tmp_path / "cache"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_a_file_of_another_build_is_refused(debug_file, tmp_path):
    with (
        server(debug_file) as (url, _),
        pytest.raises(TargetError, match="which a server gave for it"),
    ):
        find_vmlinux(RELEASE, "ab" * 20, environment(tmp_path, url))


def test_a_file_that_is_too_large_is_not_fetched(debug_file, tmp_path):
    build_id = debug_file_build_id(debug_file)
    with (
        server(debug_file, size=5 << 30) as (url, asked),
        pytest.raises(TargetError, match=r"nor by debuginfod: .*too large"),
    ):
        find_vmlinux(RELEASE, build_id, environment(tmp_path, url))
    assert asked


def test_no_server_is_asked_of_a_log(tmp_path, monkeypatch, capsys, debug_file):
    """It names no build; what a report lacks for that is said."""
    log = tmp_path / "log"
    log.write_text(
        f"[    0.000000] Linux version {RELEASE} (a@b) #1 SMP\n"
        "[    9.000000] BUG: kernel NULL pointer dereference, address: 0\n"
        "[    9.000001] RIP: 0010:f+0x1/0x10\n"
    )
    with server(debug_file) as (url, asked):
        monkeypatch.setenv("DEBUGINFOD_URLS", url)
        assert main(["report", str(log), "--source-lines"]) == ExitCode.INCOMPLETE
    assert asked == []
    assert f"no vmlinux of kernel {RELEASE}" in capsys.readouterr().out
