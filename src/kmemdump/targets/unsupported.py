# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that are not a dump of a kernel, recognised so that the error can name them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from kmemdump.formats.flat import FLAT_MAGIC
from kmemdump.formats.kdump import KDUMP_MAGIC
from kmemdump.formats.lime import LIME_MAGIC
from kmemdump.formats.rawdump import RAWDUMP_MAGIC

__all__ = ["describe_unsupported", "has_magic"]

_CONVERT = "expected a RAM image or a dump of a kernel"


class _Foreign(NamedTuple):
    """A format that is not read here, known by its magic number."""

    magic: bytes
    what: str
    hint: str = ""
    """The command that makes of it what is read here; FILE is the file."""
    offset: int = 0
    """Offset of *magic* in bytes."""


_BESIDE = (
    "its memory is in the .vmem file beside it, which opens; if there is none: "
    "vmss2core -N6 FILE"
)
_DUMP = "then dump-guest-memory NEW in QEMU's monitor"
_XEN = "xl restore -p FILE, then xl dump-core DOMAIN NEW"
_SWAP = 4086  # The signature ends the first page (mm/swapfile.c).

# The magics are those in the sources of the programs named.
_FORMATS: Sequence[_Foreign] = (
    # Dumps and saved machines of Linux guests.
    _Foreign(
        b"LibvirtQemudSave",
        "a VM that libvirt saved (virsh save, managedsave or dump)",
        "virsh restore FILE --paused, then virsh dump --memory-only DOMAIN NEW",
    ),
    _Foreign(
        b"LibvirtQemudPart",
        "a VM that libvirt began to save: it is not whole",
        "save it again: virsh dump --memory-only DOMAIN NEW",
    ),
    _Foreign(b"libvirt-xml\n", "a Xen domain that libvirt saved", "virsh restore FILE"),
    _Foreign(
        b"QEVM",
        "a migration stream of QEMU",
        f"qemu-system-… -incoming 'exec:cat FILE' with the VM's options, {_DUMP}",
    ),
    _Foreign(b"Xen saved domain, xl format", "a domain that xl saved", _XEN),
    _Foreign(b"LibxlFmt", "a migration stream of Xen", _XEN),
    _Foreign(b"\xff" * 8 + b"XENF", "a migration stream of Xen", _XEN),
    _Foreign(b"XenSavedDomain", "a VM that XenServer suspended", _XEN),
    _Foreign(b"LinuxGuestRecord", "a domain that Xen's xm saved", _XEN),
    _Foreign(b"\xed\xeb\x0f\xf0", "a core of Xen 3.0", "crash VMLINUX FILE reads it"),
    _Foreign(b"\xee\xeb\x0f\xf0", "a core of Xen 3.0", "crash VMLINUX FILE reads it"),
    _Foreign(
        b"\x7fVirtualBox SavedState V",
        "the saved state of a VirtualBox VM",
        "VBoxManage startvm VM, then VBoxManage debugvm VM dumpvmcore --filename NEW",
    ),
    # HyperVStorage, of .vmrs and .vmcx (openvmm, hvs_file).
    _Foreign(
        b"\x14\x20\x28\x01",
        "a saved state of Hyper-V (.vmrs)",
        "LiveCloudKd writes the memory of a VM of Hyper-V as a raw image",
    ),
    *(
        _Foreign(magic, "the state of a VMware VM (.vmss, .vmsn)", _BESIDE)
        for magic in (
            b"\xd0\xbe\xd2\xbe",
            b"\xd1\xba\xd1\xba",
            b"\xd2\xbe\xd2\xbe",
            b"\xd3\xbe\xd3\xbe",
        )
    ),
    _Foreign(b"AVML", "an AVML image", "avml-convert --format lime FILE NEW"),
    *(
        _Foreign(
            b"sadump\0\0",
            "a dump of Fujitsu's stand-alone dump (sadump)",
            "makedumpfile -c -d 31 -x VMLINUX FILE NEW",
            offset,
        )
        # Of a partition; on other media, a header comes first.
        for offset in (0, 512, 4096)
    ),
    _Foreign(b"DISKDUMP", "a dump of diskdump (before Linux 2.6.13)"),
    _Foreign(b"\xed\x23\x8f\x61\x73\x01\x19\xa8", "a dump of LKCD"),
    _Foreign(b"\xa8\x19\x01\x73\x61\x8f\x23\xfd", "a dump of s390"),
    _Foreign(
        b"EVF\x09\x0d\x0a\xff\0", "an EnCase image (EWF)", "ewfexport -f raw FILE"
    ),
    # Swap and disks: a machine may have been suspended to them.
    _Foreign(b"S1SUSPEND", "a hibernation image in swap space", offset=_SWAP),
    _Foreign(b"ULSUSPEND", "a hibernation image of s2disk", offset=_SWAP),
    _Foreign(b"SWAPSPACE2", "swap space", offset=_SWAP),
    _Foreign(
        b"QFI\xfb",
        "a disk image (qcow2)",
        f"if a snapshot in it has memory: qemu-system-… -loadvm NAME, {_DUMP}",
    ),
    _Foreign(b"KDMV", "a disk image (VMDK)"),
    _Foreign(b"COWD", "a disk image (VMDK)"),
    _Foreign(b"# Disk DescriptorFile", "a disk image's descriptor (VMDK)"),
    _Foreign(b"vhdxfile", "a disk image (VHDX)"),
    _Foreign(b"conectix", "a disk image (VHD)"),
    _Foreign(b"<<< Oracle VM VirtualBox Disk Image >>>", "a disk image (VDI)"),
    _Foreign(b"EFI PART", "a disk image (GPT)", offset=512),
    # Compressed files and archives.
    _Foreign(b"\x1f\x8b\x08", "compressed with gzip", "gunzip -k FILE"),
    _Foreign(b"BZh", "compressed with bzip2", "bunzip2 -k FILE"),
    _Foreign(b"\xfd7zXZ\0", "compressed with xz", "unxz -k FILE"),
    _Foreign(b"\x28\xb5\x2f\xfd", "compressed with zstd", "unzstd FILE"),
    _Foreign(b"\x04\x22\x4d\x18", "compressed with lz4", "unlz4 FILE"),
    _Foreign(b"\x89LZO\0\r\n", "compressed with lzop", "lzop -d FILE"),
    _Foreign(b"\xff\x06\0\0sNaPpY", "compressed with snappy", "snzip -dk FILE"),
    _Foreign(b"PK\x03\x04", "a zip archive", "unzip FILE"),
    _Foreign(b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "7z x FILE"),
    _Foreign(b"ustar", "a tar archive", "tar xf FILE", 257),
    _Foreign(b"!<arch>\n", "an ar archive (a Debian package?)"),
    # What lies beside dumps.
    _Foreign(
        b"LPKSHHRH",
        "a journal of systemd",
        "the kernel's lines in it: journalctl --file FILE -k -o export >NEW",
    ),
    _Foreign(b"\x3a\xff\x26\xed", "a sparse image of Android", "simg2img FILE NEW"),
    _Foreign(b"ANDROID!", "a boot image of Android"),
    _Foreign(
        b"HdrS", "a compressed kernel (vmlinuz)", "expected a dump of its memory", 0x202
    ),
    _Foreign(
        b"ARM\x64", "a kernel image of arm64", "expected a dump of its memory", 56
    ),
    _Foreign(b"\xd0\x0d\xfe\xed", "a device tree"),
    _Foreign(b"PERFILE2", "a recording of perf"),
    _Foreign(b"\x17\x08\x44tracing", "a recording of trace-cmd"),
    # Other systems.
    _Foreign(b"PAGEDU64", "a crash dump of Windows (64-bit)"),
    _Foreign(b"PAGEDUMP", "a crash dump of Windows (32-bit)"),
    _Foreign(b"hibr", "a hibernation file of Windows"),
    _Foreign(b"HIBR", "a hibernation file of Windows"),
    _Foreign(b"MDMP", "a minidump of a process (Breakpad, Windows)"),
    _Foreign(b"minidump FreeBSD/", "a crash dump of FreeBSD"),
    _Foreign(b"\xcf\xfa\xed\xfe", "a Mach-O file of macOS"),
)
_ELF_TYPES = {1: "object (a kernel module?)", 2: "executable", 3: "shared object"}
_ELF_CORE = 4
_ZLIB = b"\x38"
"""How zlib begins with a window of 2 KiB, which LiME uses (its deflate.c)."""


_DUMPS = (b"\x7fELF", KDUMP_MAGIC, FLAT_MAGIC, LIME_MAGIC, RAWDUMP_MAGIC)


def has_magic(head: bytes) -> bool:
    """
    Return whether a file says what it is: a dump, or one of the formats above.

    After that, it may go on with text, as what libvirt saves does.

    :param head: Its first 4096 bytes or more, or all of it.
    """
    return head.startswith(_DUMPS) or _find_format(head) is not None


def _find_format(head: bytes) -> _Foreign | None:
    found = (it for it in _FORMATS if head.startswith(it.magic, it.offset))
    return next(found, None)


def describe_unsupported(head: bytes) -> str | None:
    """
    Describe a file, and what to do with it.

    :param head: Its first 4096 bytes or more, or all of it.
    :return: None if it may be a dump of a kernel, or RAM.
    """
    if head.startswith(b"\x7fELF"):
        return _describe_elf(head)
    item = _find_format(head)
    if item is not None:
        hint = f"\n{item.hint}" if item.hint else ""
        return f"is {item.what}, {_CONVERT}{hint}"
    if head[:1] == _ZLIB and _starts_with_lime(head):
        hint = "unpigz <FILE >NEW, or zlib-flate -uncompress <FILE >NEW"
        return f"is a LiME file compressed with zlib, {_CONVERT}\n{hint}"
    if head.startswith(b"OSRELEASE="):
        return "is the text of VMCOREINFO, pass it with --vmcoreinfo"
    if _is_text(head):
        return f"is text, {_CONVERT}\nof a kernel log, 'kmemdump report' makes a report"
    return None


def _starts_with_lime(head: bytes) -> bool:
    """Return whether this is what LiME writes with its parameter compress=1."""
    try:
        start = zlib.decompressobj().decompress(head, len(LIME_MAGIC))
    except zlib.error:
        return False
    return start == LIME_MAGIC


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
