# SPDX-License-Identifier: GPL-2.0-or-later
"""Extras, and the commands that add them where kmemdump came from."""

import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from kmemdump.installing import describe_extra, extras

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
    "optional-dependencies"
]


def wanted(extra: str) -> set[Requirement]:
    """Return the packages of an extra, as pyproject.toml has them."""
    found = set()
    for requirement in map(Requirement, EXTRAS[extra]):
        if requirement.name == "kmemdump":
            found.update(*map(wanted, requirement.extras))
        else:
            found.add(requirement)
    return found


def test_in_an_environment():
    assert describe_extra("seal") == "pip install 'kmemdump[seal]'"


@pytest.mark.parametrize("extra", ["seal", "usb", "dask", "catalogue"])
def test_with_pipx(extra, tmp_path, monkeypatch):
    (tmp_path / "pipx_metadata.json").write_text("{}")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    start, packages = describe_extra(extra).split("kmemdump ")
    assert start == "pipx inject "
    assert set(map(Requirement, shlex.split(packages))) == wanted(extra)


def test_in_the_debian_package(tmp_path, monkeypatch):
    """The folder that the message names is one that Python searches."""
    folder = tmp_path / "site"
    more = tmp_path / "more of them"
    folder.mkdir()
    more.mkdir()
    (folder / "kmemdump-extras.pth").write_text(f"{more}\n")
    monkeypatch.setattr(extras, "_FOLDER", folder / "kmemdump-extras.pth")
    apt, pip = describe_extra("seal").split(" && ")
    assert apt == "apt install python3-pip"
    program, *words = shlex.split(pip)
    assert (program, words[:3]) == ("/usr/bin/pip", ["install", "--target", str(more)])
    assert set(map(Requirement, words[3:])) == wanted("seal")
    (more / "added.py").write_text("print('found')")
    script = f"import site; site.addsitedir({str(folder)!r}); import added"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.stdout == "found\n", ran.stderr
    assert describe_extra("libvirt") == "apt install python3-libvirt"
