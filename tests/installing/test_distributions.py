# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs, and the commands that install them, on each distribution."""

import platform

import pytest

from kmemdump.installing import describe_install


@pytest.mark.parametrize(
    ("name", "like", "command"),
    [
        ("debian", "", "apt install qemu-system-x86 util-linux"),
        ("linuxmint", "ubuntu debian", "apt install qemu-system-x86 util-linux"),
        ("fedora", "", "dnf install qemu-system-x86-core util-linux"),
        ("arch", "", "pacman -S qemu-system-x86 util-linux"),
        ("opensuse-tumbleweed", "opensuse suse", "zypper install qemu-x86 util-linux"),
        ("alpine", "", "apk add qemu-system-x86_64 setpriv"),
    ],
)
def test_what_to_install(name, like, command, monkeypatch):
    monkeypatch.setattr(
        platform, "freedesktop_os_release", lambda: {"ID": name, "ID_LIKE": like}
    )
    assert describe_install("qemu-system-x86_64", "setpriv") == command


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("debian", "apt install kexec-tools gcc"),
        ("fedora", "dnf install kexec-tools gcc"),
        ("arch", "pacman -S kexec-tools gcc"),
        ("opensuse", "zypper install kexec-tools gcc"),
        ("alpine", "apk add kexec-tools build-base linux-headers"),
    ],
)
def test_what_a_crash_kernel_needs(name, command, monkeypatch):
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": name})
    assert describe_install("kexec", "gcc") == command


def test_what_to_install_who_knows_where(monkeypatch):
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": "nixos"})
    found = describe_install("busybox")
    assert found.split("; ") == [
        "Debian, Ubuntu: apt install busybox-static",
        "Fedora: dnf install busybox",
        "Arch: pacman -S busybox",
        "SUSE: zypper install busybox-static",
        "Alpine: apk add busybox-static",
    ]
