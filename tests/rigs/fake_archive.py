# SPDX-License-Identifier: GPL-2.0-or-later
"""
An archive of Debian packages, and an ``apt`` that has it; packages are real ones.

Also that ``apt``: ``python fake_archive.py FOLDER LABEL PROGRAM ARGUMENT...``.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

OWN = "own"
"""The suites of this machine."""
MAIN = "http://a.test/d"
SECURITY = "http://a.test/s"


@dataclass
class FakeArchive:
    """Packages by suite, in a folder; ``bin`` in it has the programs."""

    folder: Path
    suites: dict[str, dict[str, dict[str, object]]] = field(default_factory=dict)
    label: str = "Debian"
    """Whose archive it is; "none" whose lists were fetched; "no-sources" for any."""

    def __post_init__(self) -> None:
        programs = self.folder / "bin"
        programs.mkdir(parents=True)
        for name in ("apt-cache", "apt-get"):
            path = programs / name
            start = f"{sys.executable} {__file__} {self.folder} {self.label} {name}"
            path.write_text(f'#!/bin/sh\nexec {start} "$@"\n')
            path.chmod(0o755)
        self.fail()
        fetched = self.label not in ("none", "no-sources")
        own = f"{self.label}-Security main {SECURITY}", f"{self.label} main {MAIN}/"
        self.fetched(*(own if fetched else ()))

    def fetched(self, *targets: str) -> None:
        """Set whose lists were fetched: label, component and address of each."""
        (self.folder / "targets").write_text("".join(f"{it}\n" for it in targets))

    def fail(self, *addresses: str) -> None:
        """Let apt fail to fetch from some addresses, which is only a warning to it."""
        (self.folder / "unreachable").write_text("\n".join(addresses))

    def add(
        self,
        suite: str,
        package: str,
        version: str = "1",
        depends: str = "",
        files: dict[str, str] | None = None,
    ) -> None:
        """Add a package with text files, or symbolic links: ``-> TARGET``."""
        packages = self.suites.setdefault(suite, {})
        packages[package] = {
            "version": version,
            "depends": depends,
            "files": files or {},
        }
        (self.folder / "archive.json").write_text(json.dumps(self.suites))


def main(folder: Path, label: str, program: str, arguments: list[str]) -> int:
    options = [it for it in arguments if it.startswith("-")]
    words = [it for it in arguments if not it.startswith("-")]
    with open(folder / "said", "a") as said:
        said.write(f"{program} {' '.join(arguments)}\n")
    states = (re.fullmatch(r"-oDir::State=.*/apt-(.*)-\w+", it) for it in options)
    suite = next((it[1] for it in states if it), OWN)
    suites = json.loads((folder / "archive.json").read_text())
    packages = suites.get(suite)
    if words[0] == "indextargets":
        print((folder / "targets").read_text(), end="")
    elif "--print-uris" in options:
        if label != "no-sources":
            print(f"'{MAIN}/dists/own/InRelease' InRelease 0")
    elif words[0] == "update":
        for address in (folder / "unreachable").read_text().split():
            print(f"Err:1 {address} {suite} InRelease\n  cannot resolve")
        return 0 if packages is not None else fail(f"no Release file of {suite}")
    elif words[0] == "pkgnames":
        for name in packages or {}:
            if name.startswith(words[1]):
                print(name)
    elif words[0] == "show":
        name, _, version = words[1].partition("=")
        package = (packages or {}).get(name)
        if package is None or version not in ("", package["version"]):
            return fail("No packages found")
        print(f"Package: {name}\nVersion: {package['version']}")
        print(f"Depends: {package['depends']}")
    elif words[0] == "download":
        name, _, version = words[1].partition("=")
        package = (packages or {}).get(name)
        if package is None or version not in ("", package["version"]):
            return fail(f"404 {words[1]}")
        build(name, package)
    return 0


def build(name: str, package: dict[str, object]) -> None:
    tree = Path("tree")
    control = tree / "DEBIAN/control"
    control.parent.mkdir(parents=True)
    depends = f"Depends: {package['depends']}\n" if package["depends"] else ""
    control.write_text(
        f"Package: {name}\nVersion: {package['version']}\nArchitecture: all\n"
        f"Maintainer: nobody <a@b.test>\nDescription: x\n{depends}"
    )
    files = package["files"]
    assert isinstance(files, dict)
    for place, content in files.items():
        path = tree / place
        path.parent.mkdir(parents=True, exist_ok=True)
        if content.startswith("-> "):
            path.symlink_to(content[3:])
        else:
            path.write_text(content)
    argv = ["dpkg-deb", "--build", "--root-owner-group", str(tree), f"{name}.deb"]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


def fail(problem: str) -> int:
    print(f"E: {problem}", file=sys.stderr)
    return 100


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]))
