# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that are not a dump of a kernel, recognised so that the error can name them."""

from __future__ import annotations

import struct

__all__ = ["describe_unsupported"]

_DECOMPRESS = "decompress it first"
_CONVERT = "expected a RAM image or a dump of a kernel"

# (magic, at its offset, what the file is, what to do)
_MAGICS: tuple[tuple[bytes, int, str, str], ...] = (
    (b"\x1f\x8b\x08", 0, "compressed with gzip", _DECOMPRESS),
    (b"BZh", 0, "compressed with bzip2", _DECOMPRESS),
    (b"\xfd7zXZ\0", 0, "compressed with xz", _DECOMPRESS),
    (b"\x28\xb5\x2f\xfd", 0, "compressed with zstd", _DECOMPRESS),
    (b"\x04\x22\x4d\x18", 0, "compressed with lz4", _DECOMPRESS),
    (b"\x89LZO\0\r\n", 0, "compressed with lzop", _DECOMPRESS),
    (b"PK\x03\x04", 0, "a zip archive", "unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", 0, "a 7-Zip archive", "unpack it first"),
    (b"ustar", 257, "a tar archive", "unpack it first"),
    (b"!<arch>\n", 0, "an ar archive (a Debian package?)", _CONVERT),
    (b"AVML", 0, "an AVML image", "convert it with avml-convert --format lime"),
    (b"DISKDUMP", 0, "a dump of the diskdump utility (before Linux 2.6.13)", _CONVERT),
    (b"PAGEDU64", 0, "a crash dump of Windows (64-bit)", _CONVERT),
    (b"PAGEDUMP", 0, "a crash dump of Windows (32-bit)", _CONVERT),
    (b"hibr", 0, "a hibernation file of Windows", _CONVERT),
    (b"HIBR", 0, "a hibernation file of Windows", _CONVERT),
    (b"S1SUSPEND", 4086, "a hibernation image in swap space", _CONVERT),
    (b"SWAPSPACE2", 4086, "swap space", _CONVERT),
    (b"QFI\xfb", 0, "a disk image (qcow2)", _CONVERT),
    (b"KDMV", 0, "a disk image (VMDK)", _CONVERT),
    (b"# Disk DescriptorFile", 0, "a disk image's descriptor (VMDK)", _CONVERT),
    (b"vhdxfile", 0, "a disk image (VHDX)", _CONVERT),
    (b"conectix", 0, "a disk image (VHD)", _CONVERT),
    (b"\x3a\xff\x26\xed", 0, "a sparse image of Android", "convert it with simg2img"),
    (b"ANDROID!", 0, "a boot image of Android", _CONVERT),
    (b"\xd0\xbe\xd2\xbe", 0, "the state of a VMware VM", "expected its .vmem file"),
    (b"\xd1\xba\xd1\xba", 0, "the state of a VMware VM", "expected its .vmem file"),
    (b"\xd2\xbe\xd2\xbe", 0, "the state of a VMware VM", "expected its .vmem file"),
    (b"\xd3\xbe\xd3\xbe", 0, "the state of a VMware VM", "expected its .vmem file"),
    (
        b"QEVM",
        0,
        "a migration stream of QEMU",
        "load it into QEMU and use qmp:SOCKET",
    ),
    (
        b"LibvirtQemudSave",
        0,
        "a VM that libvirt saved",
        "use virsh dump --memory-only",
    ),
    (b"XenSavedDomain", 0, "a VM that Xen saved", "use xl dump-core"),
    (b"HdrS", 0x202, "a compressed kernel (vmlinuz)", "expected a dump of its memory"),
    (b"ARM\x64", 56, "a kernel image of arm64", "expected a dump of its memory"),
    (b"\xd0\x0d\xfe\xed", 0, "a device tree", _CONVERT),
    (b"PERFILE2", 0, "a recording of perf", _CONVERT),
)
_ELF_TYPES = {1: "object (a kernel module?)", 2: "executable", 3: "shared object"}
_ELF_CORE = 4


def describe_unsupported(head: bytes) -> str | None:
    """
    Describe a file, and what to do with it.

    :param head: Its first 4096 bytes or more, or all of it.
    :return: None if it may be a dump of a kernel, or RAM.
    """
    if head.startswith(b"\x7fELF"):
        return _describe_elf(head)
    for magic, at, what, hint in _MAGICS:
        if head[at : at + len(magic)] == magic:
            return f"is {what}, {hint}"
    if head.startswith(b"OSRELEASE="):
        return "is the text of VMCOREINFO, pass it with --vmcoreinfo"
    if _is_text(head):
        return f"is text, {_CONVERT}\nof a kernel log, 'kmemdump report' makes a report"
    return None


def _describe_elf(head: bytes) -> str | None:
    if len(head) < 20:
        return "is a truncated ELF file, expected a core of a kernel"
    if head[4] == 1:
        return "is a 32-bit ELF file, expected a 64-bit core of a kernel"
    if head[5] == 2:
        return "is a big-endian ELF file, expected a little-endian core of a kernel"
    (type_,) = struct.unpack_from("<H", head, 16)
    if type_ == _ELF_CORE:
        return None
    what = _ELF_TYPES.get(type_, f"file of type {type_}")
    hint = "\na vmlinux is passed with --vmlinux" if type_ in (2, 3) else ""
    return f"is an ELF {what}, expected a core{hint}"


def _is_text(head: bytes) -> bool:
    sample = head[:4096]
    # A character of UTF-8 may be cut off at the end of the sample.
    try:
        text = sample.decode("utf-8")
    except UnicodeDecodeError as error:
        if len(sample) < 4096 or error.start < len(sample) - 3:
            return False
        text = sample[: error.start].decode("utf-8")
    return all(char.isprintable() or char in "\t\n\r\f\x1b" for char in text)
