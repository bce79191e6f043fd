# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``make demo`` says where it cannot install anything."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def programs(tmp_path) -> Path:
    """A folder with all programs of a distribution that has no apt."""
    for name in ("sh", "find"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    write(tmp_path / "python3", f'exec {sys.executable} "$@"')
    return tmp_path


def write(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def bootstrap(programs: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [ROOT / "tools/bootstrap", *words],
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_a_demo_elsewhere(programs):
    status, err = bootstrap(programs, "demo", "x86_64")
    assert status == 1
    assert err.startswith("tools/bootstrap: as root, run: ")
    assert "qemu-" in err
    for name in ("setpriv", "qemu-system-x86_64"):
        write(programs / name, "true")
    assert bootstrap(programs, "demo", "x86_64") == (0, "")


def test_a_crash_kernel_elsewhere(programs):
    status, err = bootstrap(programs, "kdump")
    assert (status, "x86_64-linux-gnu" in err) == (1, False)
    assert " gcc make" in err
    for name in ("gcc", "make"):
        write(programs / name, "true")
    assert bootstrap(programs, "kdump") == (0, "")


def test_the_tests_elsewhere(programs):
    status, err = bootstrap(programs, "test", "x86_64")
    assert status == 1
    assert "the tests need Debian; a container of it will do" in err


def test_an_old_python(programs):
    write(programs / "python3", "exit 1")
    status, err = bootstrap(programs, "demo", "x86_64")
    assert (status, "python3 is older than 3.11" in err) == (1, True)


def test_lists_that_cannot_be_fetched(programs):
    """It goes on with old ones, and says so; apt by itself only warns."""
    write(programs / "id", "echo 0")
    write(programs / "apt-cache", "true")
    write(programs / "apt-get", 'case "$*" in *Error-Mode=any*) exit 100 ;; esac')
    for name in ("setpriv", "qemu-system-x86_64", "grep"):
        write(programs / name, "false")
    status, err = bootstrap(programs, "demo", "x86_64")
    assert (status, err) == (0, "tools/bootstrap: going on with old lists\n")
