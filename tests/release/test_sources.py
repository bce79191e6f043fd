# SPDX-License-Identifier: GPL-2.0-or-later
"""What a release is made of: one version everywhere, and all files in the sdist."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from kmemdump.version import VERSION

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_one_version():
    """The tag's, which tools/release compares with them."""
    changes = (ROOT / "debian/changelog").read_text()
    assert re.match(r"kmemdump \((\S+)\) ", changes)[1] == VERSION
    module = (ROOT / "kmod/dkms.conf").read_text()
    assert f'PACKAGE_VERSION="{VERSION}"' in module
    changes = (ROOT / "CHANGELOG.md").read_text()
    heading = re.search(r"^## \[(\S+)\]\n\n(.*)", changes, re.M)
    assert heading[1] == VERSION or VERSION in heading[2]


def test_one_home():
    """What pip show and apt show say, and who maintains it there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    home = project["urls"]["Homepage"]
    control = (ROOT / "debian/control").read_text()
    assert re.search(r"^Homepage: (.*)$", control, re.M)[1] == home
    maintainer = re.search(r"^Maintainer: (.*)$", control, re.M)[1]
    changes = (ROOT / "debian/changelog").read_text()
    assert f" -- {maintainer}  " in changes


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The files of the repository, and of share/, which a release makes first."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs the repository: a release has no git")
    folder = tmp_path_factory.mktemp("sources") / "kmemdump"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target, follow_symlinks=False)
    for name in (
        "man/man1/kmemdump.1",
        "bash-completion/completions/kmemdump",
        "zsh/site-functions/_kmemdump",
        "fish/vendor_completions.d/kmemdump.fish",
    ):
        path = folder / "share" / name
        path.parent.mkdir(parents=True)
        path.write_text("made by make share\n")
    return folder


def build(folder: Path, kind: str, output: Path) -> Path:
    script = f"import setuptools.build_meta as it; it.build_{kind}({str(output)!r})"
    subprocess.run(
        [sys.executable, "-c", script], cwd=folder, check=True, capture_output=True
    )
    (found,) = output.iterdir()
    return found


def test_the_sdist_has_every_file(copy, tmp_path):
    built = build(copy, "sdist", tmp_path)
    with tarfile.open(built) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        ways = {it.name for it in archive if it.mode & 0o100 and it.isfile()}
    there = {
        str(path.relative_to(copy))
        for path in copy.rglob("*")
        if not path.is_dir() and "kmemdump.egg-info" not in path.parts
    }
    assert there - names == set()
    for name in ("debian/rules", "tools/share"):
        assert f"kmemdump-{VERSION}/{name}" in ways


def test_the_wheel_has_what_the_system_looks_for(copy, tmp_path):
    with zipfile.ZipFile(build(copy, "wheel", tmp_path)) as archive:
        names = set(archive.namelist())
        (metadata,) = (it for it in names if it.endswith(".dist-info/METADATA"))
        described = archive.read(metadata).decode()
    data = f"kmemdump-{VERSION}.data/data/share"
    for file in (
        "man/man1/kmemdump.1",
        "bash-completion/completions/kmemdump",
        "zsh/site-functions/_kmemdump",
        "fish/vendor_completions.d/kmemdump.fish",
        *(f"kmemdump/systemd/{path.name}" for path in (ROOT / "systemd").iterdir()),
        *(f"kmemdump/kmod/{path.name}" for path in (ROOT / "kmod").iterdir()),
        *(f"kmemdump/kdump/{it.name}" for it in ROOT.glob("kdump/*.[ch]")),
        *(f"kmemdump/kdump/hooks/{it.name}" for it in ROOT.glob("kdump/hooks/*")),
        *(f"doc/kmemdump/examples/{it.name}" for it in ROOT.glob("docs/examples/*.py")),
        "doc/kmemdump/CHANGELOG.md",
    ):
        assert f"{data}/{file}" in names
    assert "License-Expression: GPL-2.0-or-later" in described
    assert "Project-URL: Homepage, https://" in described
    assert not [name for name in names if "__pycache__" in name or "/tests/" in name]
