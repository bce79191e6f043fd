# SPDX-License-Identifier: GPL-2.0-or-later
"""
Every parser of bytes from outside, and a good input for each to start from.

Add each new parser here, or to the tables of its kind that are imported: tests and a
fuzzer walk the table, and a test fails for a parser that is not in it.
"""

import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from kmemdump.errors import FormatError, NotCapturedError, TargetError
from kmemdump.firmware_dumps.assemble import assemble
from kmemdump.firmware_dumps.folder import parse_list
from kmemdump.firmware_dumps.fragments import Fragment
from kmemdump.formats import cloud_hypervisor_state, firecracker_state, minidump
from kmemdump.formats.btf import find_btf, parse_btf
from kmemdump.formats.btf_layout import BtfLayout
from kmemdump.formats.debug_info import parse_debug_info, split_place
from kmemdump.formats.elf import PT_NOTE, ProgramHeader, pack_header
from kmemdump.formats.elfheader import parse_header_region
from kmemdump.formats.fdt import parse_fdt, reserved_ranges
from kmemdump.formats.kallsyms import kallsyms_at
from kmemdump.formats.kallsyms_search import (
    TOKEN_DIGITS,
    find_kallsyms,
    find_name,
    tokens_at,
)
from kmemdump.formats.kernel_image import parse_kernel_image
from kmemdump.formats.kinfo import pack_kinfo, parse_kinfo
from kmemdump.formats.ksymtab import find_exports
from kmemdump.formats.notes import NoteType, pack_own, read_own
from kmemdump.formats.orc import find_orc
from kmemdump.formats.proc_maps import parse_maps
from kmemdump.formats.ramoops import parse_record, parse_zone
from kmemdump.formats.ramoops_ecc import find_parity, repair
from kmemdump.formats.rawdump import parse_rawdump
from kmemdump.formats.sahara import name_row, parse_packet, parse_table
from kmemdump.formats.sahara_device import Device
from kmemdump.formats.sahara_host import SaharaHost, Send
from kmemdump.formats.smem import HOST_ANY, parse_smem
from kmemdump.kernel_search.layout_lines import layout_lines
from kmemdump.lab.fdt_writer import pack_fdt
from kmemdump.proc.mounts import parse_mountinfo
from kmemdump.proc.process_stat import parse_stat
from rigs.dump_parsers import DUMP_PARSERS
from rigs.log_parsers import LOG_PARSERS
from rigs.parser import Parser
from rigs.vm_parsers import VM_PARSERS
from rigs.writers.debug_info import write_debug_info
from rigs.writers.elfheader import write_downstream, write_series
from rigs.writers.fdt import Tree, cells, write_fdt
from rigs.writers.kallsyms import NEW, OLD, PLACE, write_kallsyms
from rigs.writers.kernel_image import write_arm64, write_x86, write_zboot
from rigs.writers.kernel_memory import kernel_btf
from rigs.writers.kinfo import LAYOUTS, write_kinfo
from rigs.writers.ksymtab import write_ksymtab
from rigs.writers.kvm_state import write_cloud_hypervisor, write_firecracker
from rigs.writers.minidump import VALI, write_old, write_regions, write_toc
from rigs.writers.ramoops import add_parity, write_zone
from rigs.writers.rawdump import Sect, write_rawdump
from rigs.writers.sahara import write_packet, write_table
from rigs.writers.smem import ANY, Part, write_smem

LOADS = [("one", 0xFFFF800080001000, 0x80001000, 64), ("two", 1 << 63, 0x9000, 8)]


_TEXT = 0xFFFFFFFF81000000
_SYMBOLS = [(_TEXT + 16 * i, f"t_{i}") for i in range(520)] + [
    (_TEXT + 9000, "T_stext")
]


def _smem(data: bytes) -> None:
    smem = parse_smem(data, "smem", auxiliary={0x60000000: 4096})
    for step in (
        lambda: smem.lookup(HOST_ANY, 602),
        lambda: smem.lookup(1, 8),
        lambda: smem.allocate(HOST_ANY, 20, 20),
        lambda: smem.lookup(1, smem.limit - 1),
    ):
        with suppress(FormatError):  # The next step is still possible.
            step()


def _regions(data: bytes) -> None:
    count = len(data) // minidump.REGION_SIZE
    minidump.check_regions(minidump.parse_regions(data, count, "table"))


def _toc(data: bytes) -> None:
    for row in minidump.parse_toc(data, "toc").subsystems:
        minidump.region_array_size(row, "toc")


def _fdt(data: bytes) -> None:
    tree = parse_fdt(data, "fdt")
    reserved_ranges(tree, "a")
    pack_fdt(tree)


def _debug_info(data: bytes) -> None:
    split_place(data, "core")
    symbols = parse_debug_info(data, "core").symbols
    for row in [*symbols][:8]:
        symbols.find(row.name)
        symbols.containing(row.address + row.size)


def _exports(data: bytes) -> None:
    find_exports(data, 1 << 63, {f"f{i}": [(1 << 63) + i] for i in range(60)})
    find_exports(data, 1 << 63, {"kfree": [1 << 63]})
    find_btf(data, "image")
    find_orc(data, range(1 << 20))


def _kallsyms(data: bytes) -> None:
    tokens = tokens_at(data, max(data.find(TOKEN_DIGITS), 0))
    if tokens is not None:
        found = find_kallsyms(data, tokens, "image")
        for addresses in found.addresses():
            assert len(addresses.values) == found.count
        found.find({"_stext", "absent"})
        first = data[found.names :][:1024]  # find() has read all names.
        find_name(first, tokens.strings, b"_stext", found.long_names)


_PLACES = struct.Struct("<6I")


def _kallsyms_of(order: Sequence[str], count: int) -> bytes:
    """Return tables of kallsyms, with their places before them."""
    written = write_kallsyms(_SYMBOLS[-count:], order, _TEXT)
    names = ("names", "count", "tokens", "index", "offsets", "base")
    return _PLACES.pack(*(written.places.get(it, 0) for it in names)) + written.data


def _known_kallsyms(data: bytes) -> None:
    places, data = data[: _PLACES.size].ljust(_PLACES.size, b"\0"), data[_PLACES.size :]
    names, count, table, index, offsets, base = _PLACES.unpack(places)
    found = kallsyms_at(data, names, count, table, index, "tables")
    found.symbols(offsets, base or None, _TEXT)


def _layout(data: bytes) -> None:
    dict(layout_lines(BtfLayout(parse_btf(data, "btf"))))


def _kinfo(data: bytes) -> None:
    pack_kinfo(parse_kinfo(data, "kinfo"))


def _own_note(data: bytes) -> None:
    found = read_own(
        lambda at, count: data[at : at + count], len(data), "core", NoteType.MARKED, 64
    )
    assert found is None or len(found) <= 64


def _rawdump(data: bytes) -> None:
    parse_rawdump(lambda at, count: data[at : at + count], len(data), "rawdump")


def _zone(data: bytes) -> None:
    parse_zone(data[1:], "zone", ecc_size=data[0] & 31 if data else 0)


def _parity(data: bytes) -> None:
    size, parity = find_parity(data)
    if parity:
        data = repair(data[:size], parity, "zone").data
    parse_record(parse_zone(data, "zone", ecc_size=parity))


@dataclass(frozen=True)
class _Bytes:
    """A piece of a dump, in memory."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, count: int) -> bytes:
        return self.data[offset : offset + count]


def _fragments(data: bytes) -> None:
    """The bytes are fragments after their lengths and names; some have addresses."""
    fragments: list[Fragment] = []
    while data and len(fragments) < 64:
        size, kind = int.from_bytes(data[:2], "little"), data[2:3]
        name = data[3:12].partition(b"\0")[0].decode("ascii", "backslashreplace")
        address = int.from_bytes(data[12:20], "little") if kind == b"A" else None
        store = _Bytes(data[20 : 20 + size])
        told = size + 4 if kind == b"A" and size % 3 == 0 else None
        fragments.append(Fragment(name, store, address, told))
        data = data[20 + size :]
    try:
        collected = assemble("fragments", fragments)
    except TargetError:
        return
    for item in collected.memory.ranges:
        collected.memory.read(item.start, min(item.size, 4096))


def _host(data: bytes) -> None:
    """The bytes are transfers, each after its length; nothing follows."""
    host = SaharaHost("host")
    steps = 0
    while data and not host.finished:
        size = int.from_bytes(data[:2], "little")
        transfer, data = data[2 : 2 + size], data[2 + size :]
        for event in host.receive(transfer):
            steps += isinstance(event, Send)
    assert steps < 100_000


def _device(data: bytes) -> None:
    def read(address: int, size: int) -> bytes:
        if address & 1:
            raise NotCapturedError("odd")
        return bytes(size)

    device = Device([name_row("a", 0x2000, 64)], read)
    device.start()
    for at in range(0, min(len(data), 2400), 24):
        device.receive(data[at : at + 24])


def _dialogue(*transfers: bytes) -> bytes:
    return b"".join(len(it).to_bytes(2, "little") + it for it in transfers)


_HELLO = write_packet(1, 2, 1, 0x400, 2, 0, 0, 0, 0, 0, 0)
_TABLE = write_table([(1, 0x2000, 8, "md_a", "md_a.BIN")], wide=True)
_TABLE32 = write_table([(1, 0x2000, 8, "md_a", "md_a.BIN")], wide=False)


def _piece(name: bytes, data: bytes, address: int | None = None) -> bytes:
    kind = b"?" if address is None else b"A"
    head = len(data).to_bytes(2, "little") + kind + name.ljust(9, b"\0")
    return head + (address or 0).to_bytes(8, "little") + data


_INFO = b"OSRELEASE=1\nSYMBOL(one)=ffff800080001000\nNUMBER(kimage_voffset)=0x10\n"
_SMEM_PARTS = [
    Part(ANY, ANY, {602: write_toc()}, {9: b"nine"}, size=0x400),
    Part(0, 1, {8: b"eight"}, size=0x200),
]

_NOTES = pack_own(NoteType.MANIFEST, b"{}") + pack_own(NoteType.MARKED, bytes(8))
_CORE = (
    pack_header(62, [ProgramHeader(PT_NOTE, 0, 120, 0, 0, len(_NOTES), 0, 4)]) + _NOTES
)

_RESERVED: Tree = {"compatible": b"a\0", "reg": cells(0, 1, 2), "phandle": cells(1)}
_TREES: tuple[Tree, ...] = (
    {"reserved-memory": {"a": _RESERVED}},
    {
        "reserved-memory": {
            "#address-cells": cells(2),
            "#size-cells": cells(2),
            "a@1": {"reg": cells(0, 1, 0, 2, 0, 4, 0, 8), "phandle": cells(1)},
        },
        "user": {
            "compatible": b"b\0a\0",
            "status": b"okay\0",
            "memory-region": cells(1, 2),
        },
    },
)

PARSERS = (
    Parser(
        "smem",
        _smem,
        (
            bytes(write_smem(_SMEM_PARTS, size=0x6000)),
            bytes(write_smem(version=11, heap={8: b"x"}, size=0x4000)),
        ),
    ),
    Parser("minidump toc", _toc, (write_toc(array=0x1000, count=3, initialized=1),)),
    Parser(
        "minidump regions",
        _regions,
        (write_regions([("KELF", 1, VALI, 0x1000, 8)] * 3),),
    ),
    Parser(
        "minidump, oldest",
        lambda data: minidump.parse_old_table(data, "old"),
        (write_old([("KLOGBUF", 0x1000, 8)]),),
    ),
    Parser(
        "elf header",
        lambda data: parse_header_region(data, "KELF"),
        (write_series(LOADS, b"OSRELEASE=1", slots=3), write_downstream(LOADS, rows=8)),
    ),
    Parser("fdt", _fdt, tuple(map(write_fdt, _TREES))),
    Parser("kinfo", _kinfo, tuple(map(write_kinfo, LAYOUTS))),
    Parser("rawdump", _rawdump, (write_rawdump([Sect("md_KELF.BIN", b"x" * 9)]),)),
    Parser("ramoops zone", _zone, (b"\0" + write_zone(b"text", 64, start=2),)),
    Parser(
        "ramoops parity",
        _parity,
        # One block, and two; reedsolo takes 10 ms for a zone of 1024 bytes.
        (
            add_parity(write_zone(b"====1.5-D\nPanic", 60, parity=32), 16),
            add_parity(write_zone(b"====1.5-D\nPanic" * 8, 168, parity=24), 8),
        ),
        20_000,
    ),
    Parser("sahara packet", lambda data: parse_packet(data, "packet"), (_HELLO,)),
    Parser("sahara table", lambda data: parse_table(data, "t", wide=True), (_TABLE,)),
    Parser(
        "sahara table, 32 bit",
        lambda data: parse_table(data, "t", wide=False),
        (_TABLE32,),
    ),
    Parser(
        "fragments",
        _fragments,
        (
            _piece(b"KELF", write_series(LOADS, _INFO, slots=3))
            + _piece(b"Kvmcorein", _INFO)
            + _piece(b"Kone", bytes(64))
            + _piece(b"Ktwo", bytes(8), 0x9000),
            _piece(b"KELF_HDR", write_downstream(LOADS, rows=8))
            + _piece(b"one", bytes(60)),
        ),
    ),
    Parser(
        "debug info",
        _debug_info,
        (write_debug_info([(16, "a", 1), (4096, "b", 18)], b"btf", {"c": 1}),),
    ),
    Parser(
        "kallsyms",
        _kallsyms,
        tuple(
            write_kallsyms(_SYMBOLS, order, _TEXT).data for order in (OLD, NEW, PLACE)
        ),
        200_000,
    ),
    Parser(
        "kallsyms tables",
        _known_kallsyms,
        (_kallsyms_of(NEW, 20), _kallsyms_of(PLACE, 20), _kallsyms_of(NEW, 300)),
        200_000,
    ),
    Parser(
        "kernel image",
        lambda data: parse_kernel_image(data, "image"),
        (
            write_x86("6.12.0-1", at=0x300),
            write_arm64("6.12.0-1"),
            write_arm64("6.12.0-1", packed=True),
            write_zboot(write_arm64("6.12.0-1")),
        ),
    ),
    Parser("btf layout", _layout, (kernel_btf(),)),
    Parser("own note", _own_note, (_CORE,)),
    Parser(
        "exported symbols",
        _exports,
        (write_ksymtab({"kfree": 0, "f1": 1}, {"init_task": 8}, 0),),
    ),
    Parser(
        "list of files",
        lambda data: list(parse_list(data)),
        (
            b"1 0x0000000080001000\t0000000000000064\t md_Kone.BIN\tmd_Kone.BIN\r\n",
            b"d.load.binary md_Kone.BIN 0x80001000 /noclear\n",
        ),
    ),
    Parser(
        "sahara host",
        _host,
        (
            _dialogue(
                _HELLO,
                write_packet(0x10, 0x1000, 64, wide=True),
                _TABLE,
                bytes(8),
                write_packet(8),
            ),
            _dialogue(_HELLO, write_packet(9, 0x1000, 52), _TABLE32, bytes(8)),
        ),
    ),
    Parser(
        "sahara device",
        _device,
        (write_packet(0x11, 0x2000, 8, wide=True) * 2 + write_packet(7),),
    ),
    Parser(
        "mounts",
        lambda data: parse_mountinfo(data.decode("utf-8", "surrogateescape"), "mounts"),
        (
            b"36 35 98:0 / /a\\040b rw master:1 - ext3 /dev/root rw,errors=x\n",
            b"40 29 0:33 / /dev/huge rw - hugetlbfs none rw,pagesize=2M\n",
        ),
    ),
    Parser(
        "state of a process",
        lambda data: parse_stat(data, "stat"),
        (
            b"12 (a) R 1) S 1 2 3 4 5 6 7 8 9 10 70 5 -1 -2 20 0 1 0 4321 99\n",
            b"1 () Z " + b" ".join(b"%d" % i for i in range(49)) + b"\n",
        ),
    ),
    Parser(
        "maps of a process",
        lambda data: parse_maps(data.decode("utf-8", "replace"), "maps"),
        (
            b"1000-2000 rw-p 00000000 00:00 0 \n3000-9000 r-xs 00001000 fd:01 12 /x\n",
            b"7f0000000000-7f0040000000 rw-s 00000000 00:01 4097   /memfd:ram\n",
        ),
    ),
    Parser(
        "state of firecracker",
        lambda data: firecracker_state.parse_state(data, "state"),
        (write_firecracker(1),),
    ),
    Parser(
        "state of cloud hypervisor",
        lambda data: cloud_hypervisor_state.parse_state(data, "state.json"),
        tuple(
            write_cloud_hypervisor(1, form=form)
            for form in ("bytes", "members", "sections")
        ),
        100_000,
    ),
    *DUMP_PARSERS,
    *LOG_PARSERS,
    *VM_PARSERS,
)
