# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel images: what writers that share no code with the reader make, and damage."""

import pytest

from kmemdump.errors import FormatError
from kmemdump.formats.kernel_image import KernelImage, parse_kernel_image
from rigs.writers.kernel_image import write_arm64, write_x86, write_zboot

FEDORA = "6.11.4-301.fc41"
ARM = write_arm64(FEDORA)


@pytest.mark.parametrize(
    ("data", "machine"),
    [
        (write_x86(FEDORA), "x86_64"),
        (write_x86(FEDORA, at=0x400), "x86_64"),
        (ARM, "aarch64"),
        (write_arm64(FEDORA, packed=True), "aarch64"),
        (write_zboot(ARM), "aarch64"),
        (write_zboot(ARM, "xz"), "aarch64"),
    ],
)
def test_images(data, machine):
    assert parse_kernel_image(data, "image") == KernelImage(machine, FEDORA)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "image: begins with , expected a kernel image"),
        (
            b"\x7fELF",
            "is an ELF file, as vmlinux is, expected a kernel image that boots",
        ),
        (write_x86(FEDORA)[:0x20F], r"image\+0x200: is truncated"),
        (write_x86(FEDORA)[:0x3000], "kernel_version leads to no release"),
        (write_x86("no number"), "kernel_version leads to no release"),
        (ARM[:64], "names no release"),
        (b"\x1f\x8b" + b"x" * 90, "image: gzip: "),
        (write_zboot(ARM, "zstd22"), r"image\+0x18: is compressed with 'zstd22'"),
        (write_zboot(ARM)[:40], r"image\+0x4: is truncated"),
        (write_zboot(ARM, "xz")[:64] + b"x" * 99, r"image\+0x40: xz: "),
    ],
)
def test_what_is_none(data, problem):
    with pytest.raises(FormatError, match=problem):
        parse_kernel_image(data, "image")
