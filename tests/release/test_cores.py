# SPDX-License-Identifier: GPL-2.0-or-later
"""
Core images of each release still open, and answer what they answered.

``cores/VERSION/`` is added with a release and never changed: ``small.core.xz`` has one
of everything that the format has, ``log.core.xz`` is of a real kernel (``capture --area
kmsg``). ``first`` is what was written before the first release.
"""

import lzma
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kmemdump import open_core
from kmemdump.cli import main
from kmemdump.coreimage import read_core, verify
from rigs.small_core import BUILD_ID, PAGE, TIME

CORES = Path(__file__).with_name("cores")
each_release = pytest.mark.parametrize(
    "release", sorted(path.name for path in CORES.iterdir())
)


def unpack(release: str, name: str, folder: Path) -> Path:
    path = folder / name
    path.write_bytes(lzma.decompress((CORES / release / f"{name}.xz").read_bytes()))
    return path


def test_the_first_is_there():
    assert (CORES / "first").is_dir()


@each_release
def test_one_of_everything(release, tmp_path):
    path = unpack(release, "small.core", tmp_path)
    core = read_core(path)
    assert verify(core) == []
    manifest = core.manifest
    assert manifest is not None
    assert (manifest.time, manifest.kernel.build_id) == (TIME, BUILD_ID)
    assert [area.name for area in manifest.areas] == ["kmsg", "crash"]
    assert core.has_debug_info
    assert core.debug_info().symbols
    assert core.packed is not None
    for number, held in ((1, core.packed), (2, core.memory), (5, core.memory)):
        assert held.read(number * PAGE, PAGE) == bytes([number]) * PAGE


@each_release
def test_a_real_log(release, tmp_path, capsys):
    path = unpack(release, "log.core", tmp_path)
    with open_core(path) as core:
        assert core.verify() == []
        log = core.ask("log")
    assert re.match(r"\[ +0\.000000\] Linux version 6\.12\.", log)
    assert log.count("\n") > 200
    assert main(["info", str(path)]) in (0, 1)
    assert "all regions are as they were written" in capsys.readouterr().out


@each_release
def test_drgn_opens_it(release, tmp_path):
    path = unpack(release, "log.core", tmp_path)
    drgn = Path(sys.executable).with_name("drgn")
    options = ["-q", "--no-default-symbols", "-c", path, "-e", "print(prog.flags)"]
    ended = subprocess.run([drgn, *options], capture_output=True, text=True)
    assert "IS_LINUX_KERNEL" in ended.stdout, ended.stderr
