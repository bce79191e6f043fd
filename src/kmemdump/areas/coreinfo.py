# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that every debugger reads first, and all other areas need."""

from drgn import Program, sizeof
from drgn.helpers.linux.cpumask import for_each_possible_cpu

from kmemdump.areas.area import area, read_bytes
from kmemdump.questions.question import function
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["COREINFO"]

_MAX_CONFIG = 1 << 20


def vmcoreinfo(prog: Program) -> None:
    """VMCOREINFO as the kernel itself keeps it (CONFIG_VMCORE_INFO)."""
    try:
        size = prog["vmcoreinfo_size"].value_()
    except LookupError:
        return
    read_bytes(prog, prog["vmcoreinfo_data"].value_(), size, 1 << 16)


def kernel_config(prog: Program) -> None:
    """The configuration, if it is built in (CONFIG_IKCONFIG)."""
    try:
        start = prog.symbol("kernel_config_data").address
        end = prog.symbol("kernel_config_data_end").address
    except LookupError:
        return
    read_bytes(prog, start - 8, end - start + 16, _MAX_CONFIG)


def page_table(prog: Program) -> None:
    """The kernel's own page table, its first level."""
    info = VmcoreInfo.parse(prog["VMCOREINFO"].string_(), "VMCOREINFO")
    table = info.symbol("swapper_pg_dir")
    prog.read(table, info.page_size)


def memory_sections(prog: Program) -> None:
    """The sparse memory model: root table and the sections that are present."""
    root = prog["mem_section"]
    roots = prog["NR_SECTION_ROOTS"].value_()
    per_root = prog["SECTIONS_PER_ROOT"].value_()
    highest = prog["__highest_present_section_nr"].value_()
    used = min(roots, highest // per_root + 1)
    table = root.read_()
    for i in range(used):
        sections = table[i].read_()
        if sections:
            size = per_root * sizeof(sections.type_.type)
            read_bytes(prog, sections.value_(), size, 1 << 20)


def processors(prog: Program) -> None:
    """Where each CPU's variables are."""
    offsets = prog["__per_cpu_offset"]
    for cpu in for_each_possible_cpu(prog):
        offsets[cpu].read_()


COREINFO = area(
    "coreinfo",
    "kernel, machine, CPUs, page table, memory model",
    "sys",
    processors,
    vmcoreinfo,
    kernel_config,
    function(page_table, bare=True),
    memory_sections,
    variables=(
        "init_uts_ns",
        "linux_banner",
        "init_mm",
        "high_memory",
        "mem_section",
        "_totalram_pages",
        "node_states",
        "nr_threads",
        "nr_cpu_ids",
        "__cpu_possible_mask",
        "__cpu_present_mask",
        "__cpu_online_mask",
        "__cpu_active_mask",
        "jiffies_64",
        "nr_swapfiles",
        "page_offset_base",
        "vmemmap_base",
        "vmalloc_base",
        "phys_base",
        "vmcoreinfo_data",
        "vmcoreinfo_size",
        "vmcoreinfo_note",
    ),
)
