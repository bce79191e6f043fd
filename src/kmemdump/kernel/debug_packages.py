# SPDX-License-Identifier: GPL-2.0-or-later
"""Where distributions publish the debug file of a kernel."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["find_debug_package"]


class _Distribution(NamedTuple):
    release: re.Pattern[str]
    """Its kernels' releases, as ``uname -r`` prints them."""
    file: str
    """The debug file; {0} is the release, {1} the group ``flavour``."""


# The first that matches counts. Names of Android's kernels are those of the Generic
# Kernel Image, Documentation of Android "GKI release builds".
_DISTRIBUTIONS = (
    _Distribution(
        re.compile(r"(?:[1-5]|6\.(?:\d|1[0-8]))\..*-(?:amd64|arm64)(?:-16k)?"),
        "Debian: /usr/lib/debug/boot/vmlinux-{0} is of the package that 'apt install "
        "linux-image-{0}-dbg' installs",
    ),
    _Distribution(  # Debian's packages of 6.19 and later.
        re.compile(r".*-(?:amd64|arm64)(?:-16k)?"),
        "Debian: /usr/lib/debug/lib/modules/{0}/vmlinux is of the package that 'apt "
        "install linux-image-{0}-dbg' installs",
    ),
    _Distribution(
        re.compile(r".*android\d+-.*"),
        "Android: the file vmlinux beside the kernel's image, from the same build",
    ),
    _Distribution(
        re.compile(
            r"\d+\.\d+\.\d+-\d+-(?:aws|azure|gcp|generic|gke|ibm|intel|kvm|lowlatency|"
            r"nvidia|oem|oracle|raspi|realtime|xilinx).*"
        ),
        "Ubuntu: /usr/lib/debug/boot/vmlinux-{0} is of the package that 'apt install "
        "linux-image-unsigned-{0}-dbgsym' installs, from ddebs.ubuntu.com",
    ),
    _Distribution(
        re.compile(r".*\.el\d+uek.*"),
        "Oracle Linux: /usr/lib/debug/lib/modules/{0}/vmlinux is of the package that "
        "'dnf install kernel-uek-debuginfo-{0}' installs, from oss.oracle.com",
    ),
    _Distribution(
        re.compile(r".*\.(?:amzn|azl|cm|el|fc)\d.*"),
        "Fedora, RHEL and the like: /usr/lib/debug/lib/modules/{0}/vmlinux is of the "
        "package that \"dnf --enablerepo='*debug*' install kernel-debuginfo-{0}\" "
        "installs",
    ),
    _Distribution(
        re.compile(r".*-(?P<flavour>default|preempt|azure|rt|64kb|longterm)"),
        "SUSE: vmlinux-{0}.debug or {0}/vmlinux.debug below /usr/lib/debug is of the "
        "package that 'zypper --plus-content debug install kernel-{1}-debuginfo' "
        "installs",
    ),
)
_PLAIN = re.compile(r"[\w.+~-]+", re.ASCII)
_OWN = "the file vmlinux in the folder in which it was built"


def find_debug_package(release: str) -> str:
    """Say in words where the debug file of a kernel is published."""
    if _PLAIN.fullmatch(release) is None:  # An attacker's words, for a shell.
        return _OWN
    for item in _DISTRIBUTIONS:
        match = item.release.fullmatch(release)
        if match:
            return item.file.format(release, match.groupdict().get("flavour"))
    return _OWN
