# SPDX-License-Identifier: GPL-2.0-or-later
"""Our Debian package, built as a release does it."""

import shutil
import subprocess
from pathlib import Path

from kmemdump.lab import PackageCache
from rigs.debian_root import debian_root

__all__ = ["build_package", "released_source"]

_ROOT = Path(__file__).parents[2]
_BUILD = (
    "build-essential",
    "debhelper",
    "lintian",
    "python3-pip",
    "python3-venv",
    "ca-certificates",
)


def released_source(folder: Path) -> Path:
    """Make a folder of what a release has: the repository's files, and share/."""
    source = folder / "kmemdump"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    for name in filter(None, listed):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_ROOT / name, source / name, follow_symlinks=False)
    subprocess.run([_ROOT / "tools/share"], check=True)
    shutil.copytree(_ROOT / "share", source / "share")
    return source


def build_package(cache: PackageCache, suite: str, source: Path, folder: Path) -> Path:
    """Build the package on a suite, without a word of lintian, into a folder."""
    with debian_root(cache, suite) as builder:
        builder.install(*_BUILD)
        builder.copy(source, "/build/kmemdump")
        builder.run("dpkg-buildpackage -b -uc -us", folder="/build/kmemdump")
        said = builder.run(
            "lintian --allow-root --fail-on warning *.changes", folder="/build"
        )
        assert said == "", said
        (built,) = builder.path.glob("build/*.deb")
        return Path(shutil.copy(built, folder))
