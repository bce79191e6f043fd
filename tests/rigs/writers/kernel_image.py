# SPDX-License-Identifier: GPL-2.0-or-later
"""
Writes kernel images as boot loaders take them, as far as their headers say what it is.

From the kernel's Documentation/arch/x86/boot.rst, arch/arm64/booting.rst, and
drivers/firmware/efi/libstub/zboot-header.S.
"""

import gzip
import lzma
import struct

__all__ = ["write_arm64", "write_x86", "write_zboot"]


def write_x86(release: str, *, at: int = 0x3000) -> bytes:
    """Write a bzImage whose version is at an offset of the file."""
    data = bytearray(at + 4096)
    data[0x1FE:0x200] = b"\x55\xaa"
    data[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", data, 0x206, 0x020F)  # Protocol 2.15
    struct.pack_into("<H", data, 0x20E, at - 0x200)
    text = f"{release} (builder@host) #1 SMP Thu Jan  1 00:00:00 UTC 2026\0".encode()
    data[at : at + len(text)] = text
    return bytes(data)


def write_arm64(release: str, *, packed: bool = False) -> bytes:
    """Write an Image, or an Image.gz."""
    data = bytearray(64)
    data[56:60] = b"ARM\x64"
    data += bytes(1000)
    data += f"Linux version {release} (builder@host) (gcc 14) #1 SMP\n\0".encode()
    return gzip.compress(bytes(data), mtime=0) if packed else bytes(data)


def write_zboot(image: bytes, kind: str = "gzip") -> bytes:
    """Write an EFI program that unpacks an image itself."""
    payload = image
    if kind == "gzip":
        payload = gzip.compress(image)
    elif kind == "xz":
        payload = lzma.compress(image)
    header = struct.pack(
        "<4s4sII8x32s", b"MZ\0\0", b"zimg", 64, len(payload), kind.encode()
    )
    return header.ljust(64, b"\0") + payload
