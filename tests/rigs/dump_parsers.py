# SPDX-License-Identifier: GPL-2.0-or-later
"""The parsers of dumps, and of what a kernel's memory holds."""

import struct
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from kmemdump.arch.architecture import arch_from_elf
from kmemdump.arch.pagetable import read_virtual, translate, walk
from kmemdump.coreimage import Manifest, pack_memory
from kmemdump.coreimage.manifest import (
    AreaRecord,
    KernelRecord,
    QuestionRecord,
    RegionRecord,
)
from kmemdump.coreimage.packed import PackedMemory
from kmemdump.coreimage.read import find_extents
from kmemdump.errors import FormatError, KmemdumpError, NotCapturedError
from kmemdump.formats.btf import Btf, BtfKind, parse_btf
from kmemdump.formats.copied import COPIED, check_copy, read_copied
from kmemdump.formats.elf import parse_core
from kmemdump.formats.elf_sections import parse_object
from kmemdump.formats.flat import parse_flat
from kmemdump.formats.kdump import parse_kdump
from kmemdump.formats.kdump_list import ListHalf, pack_anchor, pack_half, parse_list
from kmemdump.formats.lime import parse_lime
from kmemdump.formats.notes import NoteType, pack_own
from kmemdump.formats.sealed import (
    AGE_MAGIC,
    CLEAR_LIMIT,
    ClearLine,
    DeathTags,
    find_sealed,
)
from kmemdump.formats.xen_core import is_xen_core, parse_context, parse_xen_core
from kmemdump.kernel.printk import (
    find_log_places,
    format_record,
    head_address,
    read_log,
    read_newest,
)
from kmemdump.memory.ranges import Range, flatten
from kmemdump.redaction.policy import parse_policy
from kmemdump.targets.unsupported import describe_unsupported
from kmemdump.text import c_string
from kmemdump.vmcoreinfo import VmcoreInfo
from rigs.btf_writer import BtfWriter
from rigs.parser import Parser
from rigs.printk_ring import INFO, Writer
from rigs.synthetic import (
    elf_core,
    flat,
    kdump,
    lime,
    note,
    prstatus,
    vmcoreinfo,
    vmcoreinfo_note,
)
from rigs.writers.elf_object import elf_object
from rigs.writers.xen_core import context, xen_core

__all__ = ["DUMP_PARSERS"]

_MOST = 300
"""Types that are looked at."""


def _reader(data: bytes) -> Callable[[int, int], bytes]:
    return lambda at, count: data[at : at + count]


def _whole(data: bytes, at: int, count: int) -> bytes:
    found = data[at : at + count] if at >= 0 else b""
    if len(found) < count:
        raise NotCapturedError(f"nothing at {at:#x}")
    return found


def _btf(data: bytes) -> None:
    btf = parse_btf(data, "btf")
    for type_id in range(min(len(btf.places) + 2, _MOST)):
        with suppress(FormatError):
            _use(btf, type_id)
    btf.find("a", {BtfKind.STRUCT})
    btf.find_enumerator("e")


def _use(btf: Btf, type_id: int) -> None:
    found = btf.type(type_id)
    if found.kind in (BtfKind.STRUCT, BtfKind.UNION):
        list(btf.members(found))
    elif found.kind in (BtfKind.ENUM, BtfKind.ENUM64):
        list(btf.enumerator_values(found))
    elif found.kind is BtfKind.FUNC_PROTO:
        list(btf.parameters(found))
    elif found.kind is BtfKind.DATASEC:
        list(btf.section_variables(found))
    elif found.kind is BtfKind.ARRAY:
        btf.array(found)
    elif found.kind is BtfKind.INT:
        btf.int_encoding(found)


def _module(data: bytes) -> None:
    """The bytes are the BTF of a kernel and of a module, after its length."""
    size = int.from_bytes(data[:2], "little")
    kernel = parse_btf(data[2 : 2 + size], "btf")
    btf = parse_btf(data[2 + size :], "module", kernel)
    end = min(btf.first_id + len(btf.places) + 2, kernel.first_id + _MOST)
    for type_id in range(kernel.first_id, end):
        with suppress(FormatError):
            _use(btf, type_id)


def _elf(data: bytes) -> None:
    core = parse_core(_reader(data), len(data), "core")
    find_extents(core.headers, len(data), "core")


def _elf_object(data: bytes) -> None:
    for section in parse_object(_reader(data), len(data), "module"):
        assert section.name.isascii()


def _xen_core(data: bytes) -> None:
    is_xen_core(data)
    core = parse_xen_core(_reader(data), len(data), "core")
    for found in core.contexts[:4]:
        with suppress(FormatError):
            parse_context(found, "cpu")
    flatten(core.extents)


def _copied(data: bytes) -> None:
    copied = read_copied(_reader(data), len(data), "copy")
    if copied is not None:
        check_copy(_reader(data), copied, "copy")


def _list(data: bytes) -> None:
    assert parse_list(data, _LIST, "list").halves


_LIST = 2 << 20
_A_LIST = pack_anchor(_LIST).ljust(4096, b"\0") + pack_half(ListHalf(7, b"\x7fELF"))
_A_COPY = elf_core(
    [(4096, b"x" * 64)],
    pack_own(NoteType.COPIED, COPIED.pack(1, 2, 3, 1, 500, 400, 0, 7)),
)


def _kdump(data: bytes) -> None:
    dump = parse_kdump(_reader(data), len(data), "kdump")
    assert len(list(dump.ranges())) <= len(data)  # Each has a descriptor in the file.
    for frame in (0, 1, 5):
        with suppress(FormatError):
            dump.descriptor(_reader(data), frame)
    dump.end(_reader(data))


def _flat(data: bytes) -> None:
    found = parse_flat(_reader(data), len(data), "flat")
    for at in (0, 50, found.size - 1, 1 << 40):
        assert len(found.read(max(at, 0), 4096)) <= 4096


def _manifest(data: bytes) -> None:
    manifest = Manifest.from_json(data, "manifest")
    assert Manifest.from_json(manifest.to_json(), "again") == manifest


def _sealed(data: bytes) -> None:
    sealed = find_sealed(data[:CLEAR_LIMIT], "sealed")
    if sealed is not None and sealed.clear is not None:
        again = find_sealed(sealed.clear.pack() + AGE_MAGIC, "again")
        assert again is not None
        assert again.clear is not None
        assert again.clear.time == sealed.clear.time
        assert again.clear.size == sealed.clear.size


def _packed(data: bytes) -> None:
    memory = PackedMemory(data, "packed")
    for item in memory.ranges[:2]:
        memory.read(item.start, 1)


def _vmcoreinfo(data: bytes) -> None:
    info = VmcoreInfo.parse(data, "vmcoreinfo")
    for step in (
        lambda: info.page_size,
        lambda: info.kernel_offset,
        lambda: info.build_id,
        lambda: info.symbol("_stext"),
        lambda: arch_from_elf(62).page_table(info),
        lambda: arch_from_elf(183).page_table(info),
    ):
        with suppress(KmemdumpError):
            step()


def _log(data: bytes) -> None:
    """The bytes are the pieces of a ring's memory, each after address and size."""
    pieces: dict[int, bytes] = {}
    while len(data) >= 12 and len(pieces) < 16:
        address, size = struct.unpack_from("<QI", data)
        pieces[address], data = data[12 : 12 + size], data[12 + size :]

    def read(address: int, count: int) -> bytes:
        for start, piece in pieces.items():
            if start <= address and address + count <= start + len(piece):
                return piece[address - start :][:count]
        raise FormatError("memory", f"nothing at {address:#x}")

    for record in read_log(read, INFO).records:
        format_record(record)
    read_newest(read, INFO, 5)
    head_address(read, INFO)
    for _, size in find_log_places(read, INFO).texts:
        assert size > 0


def _ring() -> bytes:
    writer = Writer(3, 8, True)
    for text in ("one", "two\nlines", "a longer record, which wraps", "four"):
        writer.write(text)
    pieces = writer.pieces().items()
    return b"".join(struct.pack("<QI", at, len(it)) + it for at, it in pieces)


def _tables(data: bytes) -> None:
    """The bytes are physical memory from 0 on, with a page table at 0."""
    info = VmcoreInfo.parse(vmcoreinfo(), "vmcoreinfo")
    arch = arch_from_elf(62)
    table = arch.page_table(info)._replace(root=0)

    def read(at: int, count: int) -> bytes:
        return _whole(data, at, count)

    for virtual in (0xFFFFFFFF81000000, 0xFFFF888000000000):
        with suppress(NotCapturedError):
            translate(table, read, virtual)
        with suppress(NotCapturedError):
            read_virtual(table, read, virtual, 64)
    for _ in zip(walk(table, read, [Range(0, 1 << 30)]), range(1000), strict=False):
        pass


def _page_table() -> bytes:
    entries = {511 * 8: 0x1063, 0x1000 + 510 * 8: 0x2063, 0x2000 + 8 * 8: 0x1E3}
    memory = bytearray(0x3000)
    for at, value in entries.items():
        struct.pack_into("<Q", memory, at, value)
    return bytes(memory)


def _types() -> BtfWriter:
    w = BtfWriter()
    integer = w.integer("int", 4, signed=True)
    inner = w.struct("inner", 8, [("i", integer, 0), ("j", integer, 32)])
    w.struct("a", 16, [("", inner, 0), ("p", w.pointer(inner), 64)])
    w.struct("bits", 4, [("x", integer, 0, 3), ("y", integer, 3, 5)])
    w.struct("either", 8, [("", w.const(inner), 0)], kind=5)
    w.array(integer, 7)
    w.enum("kind", {"e": 1})
    w.enum64("big", {"f": 1 << 40})
    w.typedef("t", integer)
    w.prototype(integer, [("x", integer), ("", 0)])
    w.section(".data", [(w.variable("v", integer), 0, 4)])
    return w


def _module_btf() -> bytes:
    kernel = _types()
    module = BtfWriter(kernel)
    module.struct("m", 8, [("", 2, 0), ("k", 3, 0)])
    data = kernel.bytes()
    return len(data).to_bytes(2, "little") + data + module.bytes()


def _one_manifest() -> bytes:
    questions = [QuestionRecord("ps", True), QuestionRecord("mod", False, "why", 0.5)]
    return Manifest(
        tool="kmemdump 0.1",
        time=datetime(2026, 11, 1, tzinfo=UTC),
        kernel=KernelRecord("6.1.0", "ab" * 20, 62),
        marked_at=datetime(2026, 10, 1, tzinfo=UTC),
        regions=[RegionRecord(1, "kmsg@1000", 0x1000, 64, 64, 7, 1 << 63)],
        areas=[AreaRecord("kmsg", False, "why", 64, questions)],
        questions=questions[:1],
    ).to_json()


def _clear_line() -> bytes:
    tags = DeathTags("ab" * 16, "cd" * 16, "")
    time = datetime(2026, 11, 1, tzinfo=UTC)
    return ClearLine("6.1.0", time, 8_000_000, "panic|a|b", tags).pack() + AGE_MAGIC


_NOTE = vmcoreinfo_note(vmcoreinfo())

DUMP_PARSERS = (
    Parser("btf", _btf, (_types().bytes(),)),
    Parser("btf of a module", _module, (_module_btf(),)),
    Parser(
        "elf",
        _elf,
        (
            elf_core([(0x1000, b"x" * 64), (0x3000, b"y" * 64)], _NOTE),
            elf_core([(0, b"z")], note(b"CORE", 1, prstatus(0)) + _NOTE),
        ),
    ),
    Parser("elf object", _elf_object, (elf_object({".text": 64, ".init.text": 9}),)),
    Parser(
        "xen core",
        _xen_core,
        (xen_core({0: bytes(4096), 5: bytes(4096)}, [context({"cs": 16}, 4096)]),),
    ),
    Parser(
        "kdump",
        _kdump,
        (
            kdump({1: bytes(4096), 5: b"z" * 4096}, info=vmcoreinfo()),
            kdump({0: bytes(4096)}, notes=note(b"CORE", 1, prstatus(0)), version=4),
        ),
    ),
    Parser("copy of a crash kernel", _copied, (_A_COPY,)),
    Parser("list for a crash kernel", _list, (_A_LIST,)),
    Parser("flat", _flat, (flat([(0, b"abc"), (100, b"d" * 50), (20, b"q" * 90)]),)),
    Parser(
        "lime",
        lambda data: parse_lime(_reader(data), len(data), "lime"),
        (lime([(0, b"a" * 64), (0x1000, b"b" * 64)]),),
    ),
    Parser("manifest", _manifest, (_one_manifest(),)),
    Parser("sealed file", _sealed, (_clear_line(), AGE_MAGIC)),
    Parser(
        "packed memory",
        _packed,
        (pack_memory([Range(0, 512), Range(4096, 512)], bytes(1024)),),
    ),
    Parser("vmcoreinfo", _vmcoreinfo, (vmcoreinfo(), INFO.raw)),
    Parser("printk ring", _log, (_ring(),), 200_000),
    Parser("page table", _tables, (_page_table(),), 200_000),
    Parser(
        "kind of file",
        describe_unsupported,
        (b"\x7fELF\2\1\1".ljust(64, b"\0"), b"OSRELEASE=6.1\n", b"text"),
    ),
    Parser(
        "policy of redaction",
        lambda data: parse_policy(data, "policy"),
        (
            b'version = 1\nname = "a"\nbase = "share"\n'
            b"[kinds]\npaths = 'keep'\n[patterns]\nn = 'E[0-9]{6}'\n",
        ),
        200_000,
    ),
    Parser("string", c_string, (b"name\0rest",)),
)
