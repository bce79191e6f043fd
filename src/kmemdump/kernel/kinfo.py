# SPDX-License-Identifier: GPL-2.0-or-later
"""The contents of Android's ``debug_kinfo``, found from outside the kernel."""

from __future__ import annotations

import struct
from itertools import pairwise

from drgn import FaultError, Program, Type

from kmemdump.arch.architecture import image_address
from kmemdump.errors import NotCapturedError, UnsupportedError
from kmemdump.formats.kinfo import Kinfo, KinfoLayout, fields_of
from kmemdump.kernel.attach import Kernel
from kmemdump.kernel.limits import MAX_SYMBOLS
from kmemdump.memory.physical import PAGE_SIZE
from kmemdump.memory.ranges import Region, round_up

__all__ = ["kinfo_facts", "kinfo_regions"]

_BITS = 64
_MARKER_STEP = 256


def kinfo_facts(kernel: Kernel, layout: KinfoLayout) -> Kinfo:
    """
    Return all fields of a kinfo except its addresses.

    :raises UnsupportedError: If the kernel lacks the value of a field.
    """
    prog, info = kernel.prog, kernel.vmcoreinfo
    try:
        module = prog.type("struct module")
        names = prog.type("struct kallsym_iter")  # kernel/kallsyms.c
        name_size = names.member("name").type.length or 0
        module_size = names.member("module_name").type.length or 0
        count = prog.read_u32(info.symbol("kallsyms_num_syms"))
        stack = prog["THREAD_SIZE"].value_()
    except (LookupError, FaultError, NotCapturedError) as error:
        raise UnsupportedError(
            f"{info.source}: the kernel lacks what a kinfo holds: {error}"
        ) from error
    # KSYM_SYMBOL_LEN of include/linux/kallsyms.h (in v6.1): "%s+%#lx/%#lx [%s %s]" with
    # its NUL, and its arguments.
    symbol_size = 21 + name_size - 1 + 2 * (_BITS * 3 // 10) + module_size - 1 + 40 + 1
    per_cpu = _address(prog, "__per_cpu_start")
    flags = (
        _address(prog, "init_uts_ns") is not None,  # CONFIG_KALLSYMS_ALL
        "SYMBOL(kallsyms_relative_base)" in info.values,
        # x86_64 links per-CPU variables at 0 (until v6.15).
        per_cpu is not None and per_cpu < PAGE_SIZE,
        _address(prog, "report_cfi_failure") is not None,
    )
    return Kinfo(
        layout,
        {},
        count,
        stack,
        info.osrelease,
        "",
        (int(flags[0]), int(flags[1]), int(flags[2]), int(flags[3])),
        (name_size, _BITS, module_size, symbol_size),
        (int(_has_tree(prog)), _offset(module, "mem"), _offset(module, "kallsyms")),
    )


def kinfo_regions(kernel: Kernel, layout: KinfoLayout) -> list[Region]:
    """
    Return the kernel symbols that a kinfo has fields for; a registry numbers them.

    Only their addresses matter. Their sizes differ, because a registry takes two
    regions of the same memory for one, and _text and _stext often share an address.
    """
    found = []
    for i, name in enumerate(fields_of(layout)):
        virtual = _find(kernel, name)
        if virtual is not None:
            physical = image_address(kernel.vmcoreinfo, virtual)
            found.append(Region(0, name, physical, i + 1, virtual))
    return found


def _find(kernel: Kernel, name: str) -> int | None:
    prog, info = kernel.prog, kernel.vmcoreinfo
    if f"SYMBOL({name})" in info.values:
        return info.symbol(name)
    address = _address(prog, name)
    if address is not None:
        return address
    # kallsyms does not list its own tables. These two are next to others.
    try:
        if name == "kallsyms_markers":
            return _find_markers(kernel)
        if name == "kallsyms_seqs_of_names":
            return _find_sequences(kernel)
    except (FaultError, NotCapturedError):
        pass
    return None


def _find_markers(kernel: Kernel) -> int | None:
    """Find the table of every 256th name's offset; it ends where another starts."""
    prog, count = kernel.prog, _count(kernel)
    size = -(-count // _MARKER_STEP) * 4
    ends = (kernel.vmcoreinfo.symbol("kallsyms_token_table"), _find_sequences(kernel))
    for address in (end - round_up(size, 8) for end in ends if end):
        markers = struct.unpack(f"<{size // 4}I", prog.read(address, size))
        if markers[0] == 0 and all(a < b for a, b in pairwise(markers)):
            return address
    return None


def _find_sequences(kernel: Kernel) -> int | None:
    """Find the table that orders the names, with three bytes for each name."""
    prog, info, count = kernel.prog, kernel.vmcoreinfo, _count(kernel)
    # Since v6.2, it is next to one of two other tables. It is the right table if it has
    # each number once.
    for address in (
        info.symbol("kallsyms_relative_base") + 8,
        info.symbol("kallsyms_token_table") - round_up(3 * count, 8),
    ):
        raw = prog.read(address, 3 * count)
        order = {int.from_bytes(raw[i : i + 3], "big") for i in range(0, len(raw), 3)}
        if order == set(range(count)):
            return address
    return None


def _count(kernel: Kernel) -> int:
    address = kernel.vmcoreinfo.symbol("kallsyms_num_syms")
    count: int = kernel.prog.read_u32(address)
    if not 0 < count <= MAX_SYMBOLS:
        raise NotCapturedError(f"{count} symbols")
    return count


def _address(prog: Program, name: str) -> int | None:
    try:
        return int(prog.symbol(name).address)
    except LookupError:
        return None


def _has_tree(prog: Program) -> bool:
    """CONFIG_MODULES_TREE_LOOKUP."""
    for name in ("struct module_memory", "struct module_layout"):  # Since v6.4; before.
        try:
            return bool(prog.type(name).has_member("mtn"))
        except LookupError:
            continue
    return False


def _offset(module: Type, name: str) -> int:
    try:
        return int(module.member(name).bit_offset // 8)
    except LookupError:
        return 0
