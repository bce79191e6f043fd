# SPDX-License-Identifier: GPL-2.0-or-later
"""
Find a kernel by what its memory contains, and make the VMCOREINFO that it has not.

kallsyms shows itself (:mod:`kmemdump.formats.kallsyms_search`). It has addresses, but
not where in memory they are; or, since v7.0, places in memory, but not their addresses.
The banner gives the one, ``init_mm.pgd`` the other. What follows is proven: the name of
the system must be where ``init_uts_ns`` is, and the page table must map the image to
itself. A copy of an image, as boot loaders leave it, has no such page table.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kmemdump.arch.architecture import ARCHES, Arch, arch_from_name
from kmemdump.arch.kernel_image import KernelImage
from kmemdump.arch.pagetable import translate
from kmemdump.errors import FormatError, NotCapturedError, UnsupportedError
from kmemdump.formats.btf import MAX_SIZE, Btf, parse_btf
from kmemdump.formats.btf_layout import BtfLayout
from kmemdump.formats.elf import iter_notes
from kmemdump.formats.kallsyms import SymbolAddresses
from kmemdump.kernel_search.kallsyms import FoundKallsyms, PartOfMemory, search_kallsyms
from kmemdump.kernel_search.layout_lines import layout_lines
from kmemdump.kernel_search.memory_sections import section_lines
from kmemdump.memory.physical import Memory
from kmemdump.memory.ranges import ADDRESS_SPACE, Range
from kmemdump.memory.search import find_bytes
from kmemdump.text import c_string
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["FoundKernel", "find_kernels", "prove", "search_kernels"]

logger = logging.getLogger(__name__)

_BANNER = b"Linux version "
_RELEASE = re.compile(rb"Linux version ([!-~]{1,64}) ")
_AROUND = 64 << 20
"""Bytes around kallsyms in which the banner is: both are read-only data."""
_ALIGNMENT = 64 << 10
"""Of an image, in virtual and in physical memory."""
_MAX_BANNERS = 100
_INIT_MM = 1024
"""Bytes of init_mm in which its page table is: struct mm_struct starts with it."""
_UTS = 64 + 6 * 65
"""Bytes of init_uts_ns that hold a struct new_utsname."""
_SYSNAME = b"Linux\0"
_FIELD = 65  # Of struct new_utsname: sysname, nodename, release, version, machine, …
_KERNEL = 1 << 63
_BTF_HEADER = 24
_MAX_NOTES = 64 << 10
_NT_GNU_BUILD_ID = 3
_BUILD_ID_SIZE = 20  # BUILD_ID_SIZE_MAX

_PAGE_TABLES = ("init_top_pgt", "swapper_pg_dir")
"""Where the first is one, the other name is a macro."""
_SYMBOLS = (
    *("_end", "_stext", "_text", "init_mm", "init_task", "init_uts_ns", "linux_banner"),
    *("__start_BTF", "__start_notes", "__stop_BTF", "__stop_notes"),
    *("__highest_present_section_nr", "max_pfn", "mem_section"),
    *("panic_cpu", "prb", "printk_rb_dynamic", "printk_rb_static"),
    *("system_state", "vmcoreinfo_note", "vmlinux_build_id"),
    *_PAGE_TABLES,
)
_PROVEN = (
    ("_stext",),
    ("linux_banner",),
    ("init_uts_ns",),
    ("init_task",),
    _PAGE_TABLES,
)
"""Symbols that the page table must map to where they are: text, constants and data."""
_SYSTEM_BOOTING = 0
_NO_CPU = 0xFFFFFFFF  # PANIC_CPU_INVALID


@dataclass(frozen=True, slots=True)
class FoundKernel:
    """An image with the name of a system in it, of which more is to be proven."""

    image: KernelImage
    arch: Arch
    release: str
    tables: dict[str, int]
    """Virtual addresses of kallsyms' tables, by their symbols."""

    @property
    def boots(self) -> bool:
        """
        Return whether the kernel has not written its own VMCOREINFO yet.

        One that has none boots until it starts its scheduler. A kernel that panicked
        does not boot any more.
        """
        image = self.image
        if image.value("panic_cpu", 4) not in (None, _NO_CPU):
            return False
        return (
            image.value("system_state", 4) == _SYSTEM_BOOTING
            or image.value("vmcoreinfo_note") == 0
        )

    def candidates(self) -> Iterator[VmcoreInfo]:
        """Yield likely descriptions; :func:`prove` finds the right one."""
        name = self.image.source
        head = {"OSRELEASE": self.release}
        if (build_id := _build_id(self.image)) is not None:
            head["BUILD-ID"] = build_id
        places = {it: self.image.symbol(it) for it in ("init_uts_ns", "_stext")}
        symbols = {
            f"SYMBOL({it})": f"{at:x}" for it, at in (places | self.tables).items()
        }
        for addresses in self.arch.address_lines(self.image):
            lines = head | symbols | addresses
            text = "".join(f"{key}={value}\n" for key, value in lines.items())
            yield VmcoreInfo.parse(text.encode("ascii", "replace"), name)

    def describe(self, info: VmcoreInfo) -> VmcoreInfo:
        """
        Add to a proven description what else the memory says, and proves.

        :raises FormatError: If the kernel's types are damaged.
        """
        image = self.image
        lines = _log_lines(image)
        offset = _name_offset(image)
        btf = _read_btf(image)
        if btf is not None:
            layout = BtfLayout(btf)
            lines |= dict(layout_lines(layout))
            lines |= section_lines(image, layout, info)
            if lines.get("OFFSET(uts_namespace.name)", str(offset)) != str(offset):
                raise FormatError(image.source, f"a name at init_uts_ns+{offset}")
        lines["OFFSET(uts_namespace.name)"] = str(offset)
        return info.with_lines(lines)


def find_kernels(
    memory: Memory, source: str, *, settled: Callable[[], bool] = bool
) -> Iterator[VmcoreInfo]:
    """
    Yield a VMCOREINFO for each kernel that is found by its contents, and proven.

    :param memory: Physical memory.
    :param source: Name of the memory, for messages.
    :param settled: Called if a kernel still boots: whether to pass it over.
    """
    for kernel in search_kernels(memory, source):
        if kernel.boots and settled():
            logger.info("%s: the kernel still boots", kernel.image.source)
            continue
        try:
            info = next((it for it in kernel.candidates() if prove(kernel, it)), None)
            if info is not None:
                yield kernel.describe(info)
        except (FormatError, NotCapturedError) as error:
            logger.info("%s: %s", kernel.image.source, error)


def search_kernels(
    memory: Memory, source: str, alignment: int = _ALIGNMENT
) -> Iterator[FoundKernel]:
    """
    Yield each image with symbols and the name of a system; some may be copies.

    :param memory: Physical memory, or a file whose addresses are not known.
    :param alignment: In bytes, of an image in *memory*.
    """
    for found in search_kallsyms(memory, source):
        for addresses in found.tables.addresses():
            yield from _find_kernels(memory, found, addresses, source, alignment)


def prove(kernel: FoundKernel, info: VmcoreInfo, memory: Memory | None = None) -> bool:
    """
    Return whether the kernel's page table maps its image to where it is.

    :param memory: Physical memory; by default the memory in which it was found.
    """
    image = kernel.image
    if memory is None:
        memory = image.memory
    try:
        table = kernel.arch.page_table(info)
        places = []
        for name in _PROVEN:
            virtual = image.symbol(*name)
            places.append(kernel.arch.image_address(info, virtual))
            if memory is image.memory and places[-1] != image.place(virtual):
                return False
            if translate(table, memory.read, virtual) != places[-1]:
                return False
        direct = kernel.arch.direct_map(info, image.value)
        if direct is None:
            return True
        move = direct.virtual - direct.physical
        # Some of the image is not in the direct map of newer kernels.
        return any(translate(table, memory.read, it + move) == it for it in places)
    except (FormatError, NotCapturedError):
        return False


def _find_kernels(
    memory: Memory,
    found: FoundKallsyms,
    addresses: SymbolAddresses,
    source: str,
    alignment: int,
) -> Iterator[FoundKernel]:
    wanted = {*_SYMBOLS}
    for each in ARCHES:
        wanted.update(each.image_symbols)
    values = {
        name: next(iter(places))
        for name, places in found.symbols(addresses, wanted, 0).items()
        if len(places) == 1
    }
    name = f"{source}, kernel at {found.start + found.tables.tokens.table:#x}"
    for shift in _shifts(memory, found, addresses, values):
        if shift % alignment:
            continue
        # Without a base, what was called virtual are places in the memory.
        move = shift if addresses.base is None else 0
        symbols = {it: (at + move) % ADDRESS_SPACE for it, at in values.items()}
        image = KernelImage(name, memory, shift, symbols)
        tables = found.places(addresses, shift)
        try:
            # A copy of the image may be near, and have the same banner.
            if not image.symbol("_text") <= min(tables.values()) < image.symbol("_end"):
                continue
            release, machine = _system(image)
            arch = arch_from_name(machine)
        except (FormatError, NotCapturedError, UnsupportedError) as error:
            logger.debug("%s: %s", name, error)
            continue
        yield FoundKernel(image, arch, release, tables)


def _shifts(
    memory: Memory,
    found: FoundKallsyms,
    addresses: SymbolAddresses,
    values: dict[str, int],
) -> Iterator[int]:
    """
    Yield how far virtual addresses may be from their places in the memory.

    :param values: Virtual addresses, or places in the memory, of symbols.
    """
    table = next((values[it] for it in _PAGE_TABLES if it in values), None)
    if table is None or "init_mm" not in values or "linux_banner" not in values:
        # Functions only: CONFIG_KALLSYMS_ALL is not set.
        logger.info("kallsyms at %#x lack the kernel's variables", found.start)
        return
    tokens = found.start + found.tables.tokens.table
    if addresses.base is None:
        shifts = _by_page_table(memory, values["init_mm"], table)
    else:
        part = Range(max(tokens - _AROUND, 0), 2 * _AROUND)
        shifts = (
            values["linux_banner"] - at
            for at, _ in zip(
                find_bytes(PartOfMemory(memory, part), _BANNER, 1),
                range(_MAX_BANNERS),
                strict=False,
            )
        )
    yield from shifts


def _by_page_table(memory: Memory, init_mm: int, table: int) -> Iterator[int]:
    """Yield the virtual addresses in init_mm that may be the page table's."""
    try:
        data = memory.read(init_mm, _INIT_MM)
    except NotCapturedError:
        return
    for at in range(0, _INIT_MM, 8):
        word = int.from_bytes(data[at : at + 8], "little")
        if word >= _KERNEL:
            yield word - table


def _system(image: KernelImage) -> tuple[str, str]:
    """
    Return the kernel's release and machine.

    :raises FormatError: If what must be there is not.
    """
    table = image.symbol(*_PAGE_TABLES).to_bytes(8, "little")
    data = image.read(image.symbol("init_mm"), _INIT_MM)
    if not any(data[at : at + 8] == table for at in range(0, _INIT_MM, 8)):
        raise FormatError(image.source, "init_mm does not have the kernel's page table")
    banner = image.read(image.symbol("linux_banner"), len(_BANNER) + _FIELD)
    match = _RELEASE.match(banner)
    at = _name_offset(image)
    if match is None or at is None:
        raise FormatError(image.source, "no banner, or no name of the system")
    if image.symbol("_text") % _ALIGNMENT:
        raise FormatError(image.source, "_text is not aligned")
    name = image.read(image.symbol("init_uts_ns"), _UTS)[at:]
    release, machine = (c_string(name[it * _FIELD :][:_FIELD]) for it in (2, 4))
    if release != match[1].decode("ascii"):
        problem = f"release {release[:64]!r} in init_uts_ns, {match[1]!r} in the banner"
        raise FormatError(image.source, problem)
    return release, machine


def _name_offset(image: KernelImage) -> int | None:
    """Return the offset of ``uts_namespace.name``."""
    data = image.read(image.symbol("init_uts_ns"), _UTS)
    at = data.find(_SYSNAME, 0, _UTS - 6 * _FIELD + len(_SYSNAME))
    return None if at < 0 else at


def _build_id(image: KernelImage) -> str | None:
    """Return the build id out of the kernel's own notes, in hexadecimal."""
    try:
        start, stop = image.symbol("__start_notes"), image.symbol("__stop_notes")
        if not 0 < stop - start <= _MAX_NOTES:
            return None
        data = image.read(start, stop - start)
        for note in iter_notes(data, image.source):
            if (note.name, note.type) == ("GNU", _NT_GNU_BUILD_ID):
                # Newer kernels have a copy.
                copy = image.value("vmlinux_build_id", _BUILD_ID_SIZE)
                number = int.from_bytes(note.desc, "little")
                return note.desc.hex() if copy in (None, number) else None
    except (FormatError, NotCapturedError):
        pass
    return None


def _read_btf(image: KernelImage) -> Btf | None:
    """
    Return the kernel's types; ``None`` if it has none.

    :raises FormatError: If they are damaged.
    """
    if "__start_BTF" not in image.symbols or "__stop_BTF" not in image.symbols:
        return None
    start, stop = image.symbol("__start_BTF"), image.symbol("__stop_BTF")
    if not _BTF_HEADER <= stop - start <= MAX_SIZE:
        raise FormatError(image.source, f"BTF of {stop - start} bytes")
    return parse_btf(image.read(start, stop - start), f"{image.source}: BTF")


def _log_lines(image: KernelImage) -> dict[str, str]:
    """Return the lines about the log's ring: it is one of two, or points to itself."""
    ring = image.value("prb")
    static, dynamic = (
        image.symbols.get(f"printk_rb_{it}") for it in ("static", "dynamic")
    )
    if ring is None or ring not in (static, dynamic):
        return {}
    lines = {"SYMBOL(prb)": f"{image.symbol('prb'):x}"}
    if ring == static:
        lines["SYMBOL(printk_rb_static)"] = f"{static:x}"
    return lines
