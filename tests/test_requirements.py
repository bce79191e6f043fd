# SPDX-License-Identifier: GPL-2.0-or-later
"""What make installs: releases in pyproject.toml's ranges, each file with its hash."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
SETS = {path.stem: path.read_text() for path in (ROOT / "requirements").glob("*.txt")}


def releases(text: str) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def wanted(name: str) -> list[Requirement]:
    """Return the requirements of a set, those of other extras included."""
    if name == "build":
        return [Requirement(it) for it in PROJECT["build-system"]["requires"]]
    waiting = list(PROJECT["project"]["dependencies"]) + EXTRAS.get(name, [])
    found = []
    for requirement in map(Requirement, waiting):
        if requirement.name == PROJECT["project"]["name"]:
            waiting.extend(it for extra in requirement.extras for it in EXTRAS[extra])
        else:
            found.append(requirement)
    return found


@pytest.mark.parametrize("name", SETS)
def test_releases_are_in_range(name):
    chosen = releases(SETS[name])
    for requirement in wanted(name):
        version = chosen.get(canonicalize_name(requirement.name), "none")
        assert version != "none", f"run tools/lock: {name} lacks {requirement}"
        assert version in requirement.specifier, f"run tools/lock: {requirement}"


def test_every_extra_is_in_a_set():
    for name, requirements in EXTRAS.items():
        for requirement in map(Requirement, requirements):
            if requirement.name != PROJECT["project"]["name"]:
                assert any(
                    canonicalize_name(requirement.name) in releases(text)
                    for text in SETS.values()
                ), f"run tools/lock: no set has {requirement} of [{name}]"


def test_sets_agree():
    """They are installed into one environment."""
    chosen: dict[str, str] = {}
    for text in SETS.values():
        for name, version in releases(text).items():
            assert chosen.setdefault(name, version) == version, name


@pytest.mark.parametrize("name", SETS)
def test_every_release_has_hashes(name):
    lines = re.sub(r" *\\\n *", " ", SETS[name]).splitlines()
    packages = [line for line in lines if line and not line.lstrip().startswith("#")]
    assert packages
    for line in packages:
        assert re.search(r"==\S+.* --hash=sha256:[0-9a-f]{64}( |$)", line), line


def test_make_installs_nothing_else():
    makefile = (ROOT / "Makefile").read_text()
    stamps = re.findall(r"^\.venv/.*(?:\n\t.*)*", makefile, re.MULTILINE)
    made = {word for it in stamps for word in it.partition(":")[0].split()}
    assert {f".venv/{name}" for name in SETS} == made - {".venv/python"}
    installs = re.findall(r"pip install (.*)", makefile)
    assert len(installs) == 2
    for options in installs:
        assert "--no-build-isolation" in options
        assert "--require-hashes" in options or "--no-deps" in options
