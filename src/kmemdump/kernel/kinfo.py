# SPDX-License-Identifier: GPL-2.0-or-later
"""The contents of Android's ``debug_kinfo``, found from outside the kernel."""

from __future__ import annotations

import logging

from drgn import FaultError, Program, Type

from kmemdump.arch.architecture import image_address
from kmemdump.errors import FormatError, NotCapturedError, UnsupportedError
from kmemdump.formats.kinfo import ADDRESSES, Kinfo, KinfoLayout, fields_of
from kmemdump.kernel.attach import Kernel
from kmemdump.kernel.kallsyms import read_kallsyms_tables
from kmemdump.memory.physical import PAGE_SIZE
from kmemdump.memory.ranges import Region

__all__ = ["kinfo_facts", "kinfo_regions"]

_logger = logging.getLogger(__name__)
_BITS = 64


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
        # CONFIG_KALLSYMS_ALL; without it, variables are known from elsewhere.
        _address(prog, "init_uts_ns") is not None and not kernel.lacks,
        # Removed in Linux kernel commit a081b5789255 ("kallsyms: Get rid of kallsyms
        # relative base") (in v7.0).
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
    tables = _find_tables(kernel)
    for i, name in enumerate(fields_of(layout)):
        virtual = tables.get(name)
        if virtual is None:
            virtual = _address(kernel.prog, name)
        if virtual is not None:
            physical = image_address(kernel.vmcoreinfo, virtual)
            found.append(Region(0, name, physical, i + 1, virtual))
    return found


def _find_tables(kernel: Kernel) -> dict[str, int]:
    """Return the virtual addresses of kallsyms' tables, and what VMCOREINFO has."""
    info = kernel.vmcoreinfo
    found = {
        name: info.symbol(name)
        for name in ADDRESSES
        if f"SYMBOL({name})" in info.values
    }
    # kallsyms does not list its own tables. Two are not in VMCOREINFO either.
    try:
        found |= _find_unlisted(kernel)
    except (FaultError, FormatError, NotCapturedError) as error:
        _logger.info("%s: %s", info.source, error)
    return found


def _find_unlisted(kernel: Kernel) -> dict[str, int]:
    raw = read_kallsyms_tables(kernel.prog, kernel.vmcoreinfo, sequences=True)
    tables = raw.parse()
    found = {"kallsyms_markers": raw.start + tables.markers}
    sequences = tables.find_sequences(raw.ends)
    if sequences is not None:
        found["kallsyms_seqs_of_names"] = raw.start + sequences
    return found


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
