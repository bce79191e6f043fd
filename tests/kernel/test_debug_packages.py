# SPDX-License-Identifier: GPL-2.0-or-later
"""Advice on where to get a debug file, for releases as ``uname -r`` prints them."""

import pytest

from kmemdump.kernel.debug_packages import find_debug_package

OLD = "/usr/lib/debug/boot/vmlinux-"
NEW = "/usr/lib/debug/lib/modules/"


@pytest.mark.parametrize(
    ("release", "file", "package"),
    [
        ("5.10.0-32-cloud-amd64", f"{OLD}{{}} ", "linux-image-{}-dbg"),
        ("6.1.0-56-rt-amd64", f"{OLD}{{}} ", "linux-image-{}-dbg"),
        ("6.12.117+deb12-arm64-16k", f"{OLD}{{}} ", "linux-image-{}-dbg"),
        ("6.18.15+deb13-cloud-amd64", f"{OLD}{{}} ", "linux-image-{}-dbg"),
        ("6.19.14+deb13-cloud-arm64", f"{NEW}{{}}/vmlinux ", "linux-image-{}-dbg"),
        ("7.3.4+deb13-amd64", f"{NEW}{{}}/vmlinux ", "linux-image-{}-dbg"),
        ("10.1.2-cloud-amd64", f"{NEW}{{}}/vmlinux ", "linux-image-{}-dbg"),
        ("5.14.0-503.14.1.el9_5.x86_64", f"{NEW}{{}}/vmlinux ", " kernel-debuginfo"),
        ("6.11.4-301.fc41.aarch64", f"{NEW}{{}}/vmlinux ", " kernel-debuginfo"),
        ("6.1.112-122.189.amzn2023.x86_64", f"{NEW}{{}}", " kernel-debuginfo"),
        ("6.6.96.1-1.azl3", f"{NEW}{{}}", " kernel-debuginfo"),
        ("5.15.0-304.171.4.el9uek.x86_64", f"{NEW}{{}}", " kernel-uek-debuginfo"),
        ("6.8.0-45-generic", f"{OLD}{{}} ", "linux-image-unsigned-{}-dbgsym"),
        ("6.8.0-1018-azure", f"{OLD}{{}} ", "linux-image-unsigned-{}-dbgsym"),
        ("6.8.0-1009-nvidia-64k", f"{OLD}{{}} ", "linux-image-unsigned-{}-dbgsym"),
        ("6.4.0-150600.23.7-default", "vmlinux-{}.debug", "kernel-default-debuginfo"),
        ("6.4.0-150600.8.8-azure", "vmlinux-{}.debug", "kernel-azure-debuginfo"),
        ("6.12.9-android16-5-g1234567-ab12345678", "vmlinux", "Android: "),
        ("6.12.9-android16-5-maybe-dirty-4k", "vmlinux", "Android: "),
        ("6.11.1-arch1-1", "vmlinux", "in which it was built"),
        ("6.12.0", "vmlinux", "in which it was built"),
        ("6.8.12-4-pve", "vmlinux", "in which it was built"),
        ("", "vmlinux", "in which it was built"),
        ("6.1.0; reboot; -amd64", "vmlinux", "in which it was built"),
    ],
)
def test_advice(release: str, file: str, package: str) -> None:
    found = find_debug_package(release)
    assert file.format(release) in found
    assert package.format(release) in f" {found}"
    assert "{" not in found
    assert "\n" not in found
