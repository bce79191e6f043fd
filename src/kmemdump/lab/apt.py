# SPDX-License-Identifier: GPL-2.0-or-later
"""
Debian's package lists and archive, for this machine's architecture and others.

For another architecture, apt keeps separate lists in our folder, with this machine's
sources and keys; this machine does not change. For another release it does the same,
with the archive that this machine's sources name.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from kmemdump.errors import UnsupportedError

__all__ = ["Apt", "CommandError", "run"]

_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
"""Keys of all releases; package debian-archive-keyring."""
_FRESH = 7 * 24 * 3600
"""Seconds; older lists may name files that the archive has deleted."""


class CommandError(UnsupportedError):
    """A command failed; the message has its last line."""


def run(*argv: str, cwd: Path | None = None) -> str:
    """
    Run a command and return its output.

    :raises CommandError: If it fails.
    :raises UnsupportedError: If it is not installed.
    """
    try:
        done = subprocess.run(
            argv,
            cwd=cwd,
            env=os.environ | {"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
    except FileNotFoundError as e:
        problem = f"{argv[0]} is not here: the lab fetches its kernels from Debian"
        raise UnsupportedError(problem) from e
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise CommandError(f"{' '.join(argv)}: {words[-1]}")
    return done.stdout


class Apt:
    """
    The packages of one architecture.

    :param debian: Debian's name of the architecture.
    :param folder: Where lists other than this machine's own are kept.
    :param release: Debian's name of a release; this machine's, if it is None.
    """

    def __init__(self, debian: str, folder: Path, release: str | None = None) -> None:
        self.debian = debian
        self._folder = folder
        self._release = release

    def show(self, package: str) -> str:
        """
        Return what apt shows of the newest version of a package.

        :raises CommandError: If apt does not know the package.
        """
        return run("apt-cache", *self._options, "show", "--no-all-versions", package)

    @contextmanager
    def downloaded(self, package: str, version: str | None) -> Iterator[Path]:
        """
        Download a package, which is kept only as long as the context lasts.

        :param version: The newest, if it is None.
        :raises UnsupportedError: If that fails.
        """
        # The debug packages are 300 MB each.
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=".download-") as name:
            wanted = package if version is None else f"{package}={version}"
            options = self._options
            try:
                run("apt-get", *options, "-q", "download", wanted, cwd=Path(name))
            except CommandError as e:
                problem = f"{e}\n{self.advice()}"
                raise UnsupportedError(problem) from e
            found = list(Path(name).glob("*.deb"))
            if len(found) != 1:
                raise UnsupportedError(f"apt-get download {wanted}: no package came")
            yield found[0]

    def unpack(self, package: str, folder: Path, version: str | None = None) -> None:
        """
        Download a package, and unpack it into a folder.

        :raises UnsupportedError: If that fails.
        """
        with self.downloaded(package, version) as deb:
            run("dpkg-deb", "-x", str(deb), str(folder))

    def advice(self) -> str:
        """Return what to do when a package is not found."""
        if self._lists is None:
            return "if the network is up, run 'apt-get update' as root"
        return f"if the network is up, remove {self._lists}"

    @cached_property
    def _lists(self) -> Path | None:
        if self._release is not None:
            return self._folder / f"apt-{self._release}-{self.debian}"
        if run("dpkg", "--print-architecture").strip() == self.debian:
            return None
        return self._folder / f"apt-{self.debian}"

    @cached_property
    def _options(self) -> tuple[str, ...]:
        place = self._lists
        if place is None:
            return ()
        settings: dict[str, str | Path] = {
            "APT::Architecture": self.debian,
            "APT::Architectures": self.debian,
            "APT::Sandbox::User": "",  # Perhaps only root can read our folder.
            "Dir::State": place,
            "Dir::State::lists": place / "lists",
            "Dir::State::status": "/dev/null",
            "Dir::Cache": place / "cache",
        }
        sources = place / "sources.list"
        if self._release is not None:
            settings["Dir::Etc::sourcelist"] = sources
            settings["Dir::Etc::sourceparts"] = "/dev/null"
        options = tuple(f"-o{name}={value}" for name, value in settings.items())
        stamp = place / "updated"
        place.mkdir(parents=True, exist_ok=True)
        with open(place / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not stamp.exists() or time.time() - stamp.stat().st_mtime > _FRESH:
                if self._release is not None:
                    signed = f"[signed-by={_KEYS}]"
                    line = f"deb {signed} {_archive()} {self._release} main\n"
                    sources.write_text(line)
                for folder in ("lists/partial", "cache/archives/partial"):
                    (place / folder).mkdir(parents=True, exist_ok=True)
                try:
                    run("apt-get", *options, "-q", "update")
                except CommandError:
                    if not stamp.exists():
                        raise
                    return options  # Old lists may still do.
                stamp.touch()
        return options


def _archive() -> str:
    """Return where this machine's own packages come from."""
    what = ("--format", "$(LABEL) $(COMPONENT) $(REPO_URI)", "Created-By: Packages")
    for line in run("apt-get", "indextargets", *what).splitlines():
        label, component, address = line.split(" ", 2)
        if (label, component) == ("Debian", "main"):  # Others: Debian-Security.
            return address
    raise UnsupportedError(
        "apt knows no archive of Debian's\nrun 'apt-get update' as root"
    )
