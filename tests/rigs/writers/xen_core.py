# SPDX-License-Identifier: GPL-2.0-or-later
"""
Dumps as ``xl dump-core`` writes them, made of Xen's documents; no Xen was at hand.

docs/misc/dump-core-format.txt has the sections, xen/include/public/arch-x86/ the
structures, tools/libs/guest/xg_core.c their order in the file.
"""

import ctypes
import io
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO

__all__ = ["context", "write_xen_core", "xen_core"]

PAGE = 4096
INVALID = 2**64 - 1
HVM, PV = 0xF00FEBEE, 0xF00FEBED

_u8, _u16 = ctypes.c_uint8, ctypes.c_uint16
_u32, _u64 = ctypes.c_uint32, ctypes.c_uint64


class _UserRegs(ctypes.LittleEndianStructure):
    """``struct cpu_user_regs`` (xen-x86_64.h)."""

    # fmt: off
    _fields_ = (
        *((name, _u64) for name in (
            "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8",
            "rax", "rcx", "rdx", "rsi", "rdi",
        )),
        ("error_code", _u32), ("entry_vector", _u32),
        ("rip", _u64), ("cs", _u16), ("_pad0", _u16),
        ("saved_upcall_mask", _u8), ("_pad1", _u8 * 3),
        ("rflags", _u64), ("rsp", _u64),
        ("ss", _u16), ("_pad2", _u16 * 3), ("es", _u16), ("_pad3", _u16 * 3),
        ("ds", _u16), ("_pad4", _u16 * 3), ("fs", _u16), ("_pad5", _u16 * 3),
        ("gs", _u16), ("_pad6", _u16 * 3),
    )
    # fmt: on


class _TrapInfo(ctypes.LittleEndianStructure):
    _fields_ = (("vector", _u8), ("flags", _u8), ("cs", _u16), ("address", _u64))


class _Context(ctypes.LittleEndianStructure):
    """``struct vcpu_guest_context`` (xen.h) on x86-64."""

    _fields_ = (
        ("fpu_ctxt", ctypes.c_char * 512),
        ("flags", _u64),
        ("user_regs", _UserRegs),
        ("trap_ctxt", _TrapInfo * 256),
        *((name, _u64) for name in ("ldt_base", "ldt_ents")),
        ("gdt_frames", _u64 * 16),
        *((name, _u64) for name in ("gdt_ents", "kernel_ss", "kernel_sp")),
        ("ctrlreg", _u64 * 8),
        ("debugreg", _u64 * 8),
        *(
            (f"{name}_eip", _u64)
            for name in ("event_callback", "failsafe_callback", "syscall_callback")
        ),
        *((name, _u64) for name in ("vm_assist", "fs_base")),
        *((name, _u64) for name in ("gs_base_kernel", "gs_base_user")),
    )


def context(
    registers: Mapping[str, int], cr3: int = 0, *, online: bool = True, gs: int = 0
) -> bytes:
    """
    Return the context of a CPU in the kernel.

    :param registers: Values by the names of ``struct cpu_user_regs``.
    :param gs: Base of GS.
    """
    found = _Context(flags=1 | online << 5, gs_base_kernel=gs, gs_base_user=7)
    for name, value in registers.items():
        setattr(found.user_regs, name, value)
    found.ctrlreg[3] = cr3
    return bytes(found)


def _note(kind: int, desc: bytes) -> bytes:
    return struct.pack("<III4s", 4, len(desc), kind, b"Xen") + desc


def write_xen_core(
    file: BinaryIO,
    frames: Sequence[int],
    read: Callable[[int], bytes],
    contexts: Sequence[bytes] = (),
    *,
    magic: int = HVM,
    machine: int = 62,
    version: int = 1,
    page_size: int = PAGE,
    invalid: int = 0,
) -> None:
    """
    Write a dump.

    :param frames: Numbers of the page frames, ascending.
    :param read: Returns a page by its frame.
    :param invalid: Pages that the domain gave back while it was dumped.
    """
    count = len(frames) + invalid
    desc = struct.pack("<4Q", magic, len(contexts), count, page_size)
    notes = (
        _note(0x2000000, b"")
        + _note(0x2000001, desc)
        + _note(0x2000002, bytes(1264))
        + _note(0x2000003, struct.pack("<Q", version))
    )
    entry = 16 if magic == PV else 8
    sizes = {
        "": 0,
        ".shstrtab": 0,
        ".note.Xen": len(notes),
        ".xen_prstatus": sum(map(len, contexts)),
        ".xen_shared_info": PAGE,
        ".xen_pages": count * PAGE,
        ".xen_p2m" if magic == PV else ".xen_pfn": count * entry,
    }
    names = b"\0" + b"".join(name.encode() + b"\0" for name in sizes if name)
    sizes[".shstrtab"] = len(names)
    at = 64 + 64 * len(sizes)
    places = {"": 0}
    for name in (".note.Xen", ".xen_prstatus", ".xen_shared_info"):
        places[name] = at
        at += sizes[name]
    at += -at % PAGE
    for name in [*sizes][5:]:
        places[name] = at
        at += sizes[name]
    places[".shstrtab"] = at
    ident = b"\x7fELF\x02\x01\x01\0\x01".ljust(16, b"\0")
    # e_shoff, e_flags, e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx
    rest = (64, 0, 64, 56, 0, 64, len(sizes), 1)
    file.write(struct.pack("<16sHHIQQQIHHHHHH", ident, 4, machine, 1, 0, 0, *rest))
    for name, size in sizes.items():
        kind = {"": 0, ".shstrtab": 3, ".note.Xen": 7}.get(name, 1)
        where = names.index(name.encode() + b"\0")
        row = (where, kind, 0, 0, places[name], size, 0, 0, 0, 0)
        file.write(struct.pack("<IIQQQQIIQQ", *row))
    file.write(notes + b"".join(contexts) + bytes(PAGE))
    file.seek(places[".xen_pages"])
    for frame in frames:
        page = read(frame)
        if any(page):
            file.write(page)
        else:
            file.seek(PAGE, io.SEEK_CUR)
    file.seek(places[".xen_pages"] + count * PAGE)
    numbers = [*frames, *[INVALID] * invalid]
    if magic == PV:
        pairs = [value for frame in numbers for value in (frame, frame ^ 0x55000)]
        file.write(struct.pack(f"<{2 * count}Q", *pairs))
    else:
        file.write(struct.pack(f"<{count}Q", *numbers))
    file.write(names)


def xen_core(
    pages: Mapping[int, bytes], contexts: Sequence[bytes] = (), **fields: int
) -> bytes:
    """Return a dump of frames to pages; :func:`write_xen_core` has the rest."""
    file = io.BytesIO()
    write_xen_core(file, sorted(pages), pages.__getitem__, contexts, **fields)
    return file.getvalue()
