# SPDX-License-Identifier: GPL-2.0-or-later
"""
Kernel images that a boot loader starts, and the release that they name.

x86's bzImage: Documentation/arch/x86/boot.rst. arm64's Image, which is often packed
with gzip: Documentation/arch/arm64/booting.rst. An EFI program that unpacks itself
("zboot", since 6.1): drivers/firmware/efi/libstub/zboot-header.S.
"""

from __future__ import annotations

import lzma
import re
import struct
import zlib
from dataclasses import dataclass

from kmemdump.errors import FormatError

__all__ = ["KernelImage", "parse_kernel_image"]

_MAX_IMAGE = 256 << 20
"""Bytes of an image that is unpacked; a distribution's for arm64 has 30 to 60 MB."""
_MAX_RELEASE = 64  # __NEW_UTS_LEN
_RELEASE = re.compile(rb"[0-9][!-~]{0,%d}" % (_MAX_RELEASE - 1))
_BANNER = re.compile(rb"Linux version ([0-9][!-~]{0,%d}) \(" % (_MAX_RELEASE - 1))
_EXPECTED = "expected a kernel image that boots (vmlinuz, bzImage or Image)"


@dataclass(frozen=True, slots=True)
class KernelImage:
    """What an image says about its kernel."""

    machine: str
    """Its architecture, as ``uname -m`` prints it."""
    release: str
    """As ``uname -r`` prints it."""


def parse_kernel_image(data: bytes, source: str) -> KernelImage:
    """
    Return which kernel an image has.

    :param data: The whole file.
    :raises FormatError: If it is no image of an architecture that is known.
    """
    if data[0x202:0x206] == b"HdrS":
        return KernelImage("x86_64", _release_of_x86(data, source))
    if data.startswith(b"\x7fELF"):
        raise FormatError(source, f"is an ELF file, as vmlinux is, {_EXPECTED}")
    if data[:2] == b"MZ" and data[4:8] == b"zimg":
        data = _unpack_zboot(data, source)
    elif data.startswith(b"\x1f\x8b"):
        data = _gunzip(data, source)
    if data[56:60] == b"ARM\x64":
        found = _BANNER.search(data)
        if found is None:
            raise FormatError(source, "is an image for arm64 that names no release")
        return KernelImage("aarch64", found[1].decode())
    raise FormatError(source, f"begins with {data[:8].hex()}, {_EXPECTED}")


def _release_of_x86(data: bytes, source: str) -> str:
    if len(data) < 0x210:
        raise FormatError(f"{source}+0x200", "is truncated in its setup header")
    (offset,) = struct.unpack_from("<H", data, 0x20E)
    found = _RELEASE.match(data, 0x200 + offset)
    if not offset or found is None:
        raise FormatError(f"{source}+0x20e", "kernel_version leads to no release")
    return found[0].decode()


def _unpack_zboot(data: bytes, source: str) -> bytes:
    if len(data) < 56:
        raise FormatError(f"{source}+0x4", "is truncated in its header")
    offset, size = struct.unpack_from("<II", data, 8)
    kind = data[24:56].partition(b"\0")[0]
    packed = data[offset : offset + size]
    if kind == b"gzip":
        return _gunzip(packed, source)
    if kind == b"xz":
        try:
            return lzma.LZMADecompressor().decompress(packed, _MAX_IMAGE)
        except lzma.LZMAError as error:
            raise FormatError(f"{source}+{offset:#x}", f"xz: {error}") from error
    name = kind.decode("ascii", "backslashreplace")
    raise FormatError(
        f"{source}+0x18", f"is compressed with {name!r}, expected gzip or xz"
    )


def _gunzip(data: bytes, source: str) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(data, _MAX_IMAGE)
    except zlib.error as error:
        raise FormatError(source, f"gzip: {error}") from error
