# SPDX-License-Identifier: GPL-2.0-or-later
"""
Debian's ``crash``, of any architecture and release, unpacked into a folder.

A newer crash brings its own C library, whose loader starts it; one of another
architecture runs in qemu-user. Nothing is installed.
"""

from __future__ import annotations

import platform
from pathlib import Path

from kmemdump.errors import UnsupportedError
from kmemdump.lab.architectures import Architecture
from kmemdump.lab.packages import PackageCache

__all__ = ["NEWER_RELEASE", "unpacked_crash"]

NEWER_RELEASE = "trixie"
"""A release whose crash, 8.0.6, knows Linux 6.12: Debian 13."""

_PACKAGES = (
    "crash",
    "libc6",
    "libgcc-s1",
    "liblzo2-2",
    "libncursesw6",
    "libsnappy1v5",
    "libstdc++6",
    "libtinfo6",
    "libzstd1",
    "zlib1g",
)


def unpacked_crash(
    cache: PackageCache, architecture: Architecture, release: str | None = None
) -> tuple[str, ...]:
    """
    Return the beginning of the command line that starts a crash.

    :param release: Debian's name of a release; this machine's, if it is None.
    :raises UnsupportedError: If it cannot be downloaded.
    """

    def unpack(folder: Path) -> None:
        for package in _PACKAGES:
            cache.apt(architecture, release).unpack(package, folder)
        # Debian 13's packages expect that the system has made this link.
        if not (folder / "lib").exists():
            (folder / "lib").symlink_to("usr/lib")

    name = "_".join(filter(None, ("crash", architecture.debian, release)))
    root = cache.entry(name, unpack)
    program = str(root / "usr/bin/crash")
    if architecture.name != platform.machine():
        emulator = f"qemu-{architecture.name}-static"
        # Not QEMU's newest CPU: it signs return addresses if programs ask for that, as
        # Debian 13's do, and is then ten times slower to emulate.
        return (emulator, "-cpu", architecture.cpu, "-L", str(root), program)
    libraries = root / "lib" / architecture.compiler.rstrip("-")
    for loader in libraries.glob("ld-linux-*.so.*"):
        return (str(loader), "--library-path", str(libraries), program)
    raise UnsupportedError(f"{root}: the packages hold no loader; remove it")
