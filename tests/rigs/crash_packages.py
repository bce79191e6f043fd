# SPDX-License-Identifier: GPL-2.0-or-later
"""
Debian's ``crash``, of any architecture and release, unpacked into a folder.

A new one brings a C library of its own, by whose loader it is started; one of another
architecture is run by qemu-user. Nothing is installed.
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
        # Debian 13's packages leave it to the system that this is a link.
        if not (folder / "lib").exists():
            (folder / "lib").symlink_to("usr/lib")

    name = "_".join(filter(None, ("crash", architecture.debian, release)))
    root = cache.entry(name, unpack)
    program = str(root / "usr/bin/crash")
    if architecture.name != platform.machine():
        emulator = f"qemu-{architecture.name}-static"
        # Not the newest CPU that QEMU knows: one that signs return addresses, as Debian
        # 13's programs ask it to, is emulated ten times slower.
        return (emulator, "-cpu", architecture.cpu, "-L", str(root), program)
    libraries = root / "lib" / architecture.compiler.rstrip("-")
    for loader in libraries.glob("ld-linux-*.so.*"):
        return (str(loader), "--library-path", str(libraries), program)
    raise UnsupportedError(f"{root}: the packages hold no loader; remove it")
