# SPDX-License-Identifier: GPL-2.0-or-later
"""What to install, and how, on distributions other than Debian, too."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping
from typing import NamedTuple

from kmemdump.errors import UnsupportedError

__all__ = ["describe_install", "require_programs"]


class _Family(NamedTuple):
    """Distributions with the same packages."""

    name: str
    ids: tuple[str, ...]
    """``ID`` or ``ID_LIKE`` of os-release(5)."""
    command: str
    packages: Mapping[str, str]
    """Packages by what they bring; others are called as the program."""


_EVERYWHERE = {"kexec": "kexec-tools"}
"""Packages that are called differently from the program, but the same by all."""
_FAMILIES = (
    _Family(
        "Debian, Ubuntu",
        ("debian", "ubuntu"),
        "apt install",
        {
            "qemu-system-x86_64": "qemu-system-x86",
            "qemu-system-aarch64": "qemu-system-arm",
            "setpriv": "util-linux",
            "busybox": "busybox-static",
            "debuginfod-find": "debuginfod",
            "libusb": "libusb-1.0-0",
        },
    ),
    _Family(
        "Fedora",
        ("fedora",),
        "dnf install",
        {
            "qemu-system-x86_64": "qemu-system-x86-core",
            "qemu-system-aarch64": "qemu-system-aarch64-core",
            "setpriv": "util-linux",
            "debuginfod-find": "elfutils-debuginfod-client",
            "libusb": "libusb1",
        },
    ),
    _Family(
        "Arch",
        ("arch",),
        "pacman -S",
        {
            "qemu-system-x86_64": "qemu-system-x86",
            "setpriv": "util-linux",
            "debuginfod-find": "debuginfod",
            "python3-libvirt": "libvirt-python",
        },
    ),
    _Family(
        "SUSE",
        ("suse", "opensuse"),
        "zypper install",
        {
            "qemu-system-x86_64": "qemu-x86",
            "qemu-system-aarch64": "qemu-arm",
            "setpriv": "util-linux",
            "busybox": "busybox-static",
            "debuginfod-find": "debuginfod-client",
            "libusb": "libusb-1_0-0",
            "python3-libvirt": "python3-libvirt-python",
        },
    ),
    _Family(
        "Alpine",
        ("alpine",),
        "apk add",
        {
            "busybox": "busybox-static",
            "debuginfod-find": "debuginfod",
            "gcc": "build-base linux-headers",
            "python3-libvirt": "py3-libvirt",
        },
    ),
)


def describe_install(*programs: str) -> str:
    """
    Return how to install programs on this machine.

    :return: One command if the distribution is known, otherwise those of all.
    """
    ours = _family()
    if ours is not None:
        return _command(ours, programs)
    return "; ".join(f"{it.name}: {_command(it, programs)}" for it in _FAMILIES)


def require_programs(*programs: str) -> None:
    """
    Check that programs are installed.

    :raises UnsupportedError: If one is not; the message says how to install it.
    """
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise UnsupportedError(
            f"{' and '.join(missing)} {verb} not installed\n"
            f"{describe_install(*missing)}"
        )


def _family() -> _Family | None:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return None
    names = [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
    # The nearest first: Ubuntu's is "ubuntu debian", openSUSE's "suse opensuse".
    for name in names:
        for family in _FAMILIES:
            if name.split("-")[0] in family.ids:
                return family
    return None


def _command(family: _Family, programs: tuple[str, ...]) -> str:
    known = {**_EVERYWHERE, **family.packages}
    packages = [known.get(name, name) for name in programs]
    return f"{family.command} {' '.join(dict.fromkeys(packages))}"
