# SPDX-License-Identifier: GPL-2.0-or-later
"""
Debian's package lists and archive, for this machine's architecture and others.

For another architecture, apt keeps separate lists in our folder, with this machine's
sources and keys; this machine does not change. For another release it does the same,
with the archive that this machine's sources name.
"""

from __future__ import annotations

import fcntl
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from kmemdump.errors import UnsupportedError
from kmemdump.lab.apt_sources import (
    ANOTHER,
    debian_address,
    fetched_archives,
    has_sources,
    sources_of,
)
from kmemdump.lab.commands import CommandError, attempt, run
from kmemdump.locked_folder import LockedFolder

__all__ = [
    "Apt",
    "MissingPackageError",
    "have_apt",
    "have_debian",
    "require_apt",
]

_FRESH = 7 * 24 * 3600
"""Seconds; older lists may name files that the archive has deleted."""
_FAILED = re.compile(r"^Err:\d+ (\S+).*\n  (.*)", re.MULTILINE)
"""What apt prints of a file that it could not fetch: where, and why."""


class MissingPackageError(UnsupportedError):
    """The archive has no such package, or not any more."""


def have_apt() -> bool:
    """
    Return whether this machine can download and unpack packages.

    Not where apt has no sources, as on a machine of another distribution that builds
    images of Debian.
    """
    return _is_installed() and has_sources()


def _is_installed() -> bool:
    return shutil.which("apt-get") is not None and shutil.which("dpkg-deb") is not None


def have_debian() -> bool:
    """
    Return whether Debian's packages can be downloaded.

    Not where apt has another distribution's, such as Ubuntu. A machine whose lists were
    never fetched counts as Debian; then apt's own error says what to do.
    """
    if not have_apt():
        return False
    archives = fetched_archives()
    return not archives or "Debian" in archives


def require_apt() -> None:
    """
    Check that this machine can download Debian's packages.

    :raises UnsupportedError: If not; the message says what to do instead.
    """
    if not _is_installed():
        problem = "apt and dpkg are not installed, with which"
    elif not has_sources():
        problem = "apt has no sources, from which"
    else:
        return
    raise UnsupportedError(f"{problem} Debian's kernels are fetched\n{ANOTHER}")


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

    def names(self, prefix: str) -> list[str]:
        """Return the names of packages with a prefix, dependencies' included."""
        return run("apt-cache", *self._options, "pkgnames", prefix).split()

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
        :raises MissingPackageError: If the archive does not have it.
        :raises UnsupportedError: If it cannot be downloaded.
        """
        # The debug packages are 300 MB each.
        with LockedFolder(self._folder) as folder:
            wanted = package if version is None else f"{package}={version}"
            options = self._options
            try:
                argv = ("apt-get", *options, "-q", "download", wanted)
                run(*argv, cwd=folder, long=True)
            except CommandError as e:
                if not self._has(wanted):
                    raise MissingPackageError(
                        f"Debian has no package {wanted} for {self.debian} in "
                        f"{self._release or 'the suites of this machine'}\n"
                        f"{self.advice()}"
                    ) from e
                problem = f"{e}\n{self.advice()}"
                raise UnsupportedError(problem) from e
            found = list(folder.glob("*.deb"))
            if len(found) != 1:
                raise UnsupportedError(f"apt-get download {wanted}: no package came")
            yield found[0]

    def unpack(self, package: str, folder: Path, version: str | None = None) -> str:
        """
        Download a package, and unpack it into a folder.

        :return: What the package depends on.
        :raises UnsupportedError: If that fails.
        """
        with self.downloaded(package, version) as deb:
            run("dpkg-deb", "-x", str(deb), str(folder), long=True)
            return run("dpkg-deb", "-f", str(deb), "Depends")

    def _has(self, package: str) -> bool:
        try:
            return bool(self.show(package))
        except CommandError:
            return False

    def archive(self) -> str:
        """
        Return the address of the archive from which this machine's packages come.

        :raises UnsupportedError: If it is not Debian's.
        """
        return debian_address()

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
            # Machines made of Debian's images for containers keep no index of the
            # lists, and then each call takes a second.
            own = self._folder / f".apt-{self.debian}"
            own.mkdir(parents=True, exist_ok=True)
            return _indexes(own)
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
        options += _indexes(place)
        stamp = place / "updated"
        place.mkdir(parents=True, exist_ok=True)
        with open(place / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not stamp.exists() or time.time() - stamp.stat().st_mtime > _FRESH:
                if self._release is not None:
                    sources.write_text(sources_of(self._release))
                for folder in ("lists/partial", "cache/archives/partial"):
                    (place / folder).mkdir(parents=True, exist_ok=True)
                try:
                    _update(options)
                except CommandError:
                    if not stamp.exists():
                        raise
                    return options  # Old lists may still do.
                stamp.touch()
        return options


def _update(options: tuple[str, ...]) -> None:
    """
    Fetch the lists of Debian's packages.

    Not of all sources: a foreign one may lack the architecture.

    :raises CommandError: If they cannot be fetched; apt itself goes on with old ones,
        or none.
    """
    argv = ("apt-get", *options, "-q", "update")
    done = attempt(*argv, long=True)
    failed = _FAILED.findall(done.stdout)
    needed = _debian_addresses() if failed else set()
    for address, reason in failed:
        if address.rstrip("/") in needed or not _debian_addresses(*options):
            raise CommandError(f"apt cannot fetch lists from {address}: {reason}")
    if done.returncode and not failed:
        said = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise CommandError(f"{' '.join(argv)}: {said}")


def _debian_addresses(*options: str) -> set[str]:
    """Return whose lists were fetched of Debian, its updates and backports included."""
    archives = fetched_archives(*options).items()
    return {it.rstrip("/") for label, it in archives if label.startswith("Debian")}


def _indexes(folder: Path) -> tuple[str, ...]:
    """Return the options by which apt keeps its indexes of the lists in a folder."""
    names = ("pkgcache", "srcpkgcache")
    return tuple(f"-oDir::Cache::{name}={folder / name}.bin" for name in names)
