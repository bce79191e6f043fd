# SPDX-License-Identifier: GPL-2.0-or-later
"""
The lines of VMCOREINFO that describe structures, out of the kernel's BTF.

They are those of crash_save_vmcoreinfo_init() and log_buf_vmcoreinfo_setup() in the
kernel. A line whose type, member or constant a kernel has not is left out, as there.
"""

from __future__ import annotations

from collections.abc import Iterator

from kmemdump.formats.btf_layout import BtfLayout

__all__ = ["layout_lines"]

# fmt: off
_SIZES = (
    "mem_section", "page", "pglist_data", "zone", "free_area", "list_head",
    "nodemask_t", "printk_ringbuffer", "prb_desc_ring", "prb_desc",
    "prb_data_blk_lpos", "printk_info", "dev_printk_info", "prb_data_ring",
    "atomic_long_t", "latched_seq",
)
# fmt: on
# fmt: off
_OFFSETS = (
    "uts_namespace.name", "mem_section.section_mem_map", "page.flags",
    "page._refcount", "page.mapping", "page.lru", "page._mapcount", "page.private",
    "page.compound_dtor", "page.compound_order", "page.compound_head",
    "page.compound_info", "pglist_data.node_zones", "pglist_data.nr_zones",
    "pglist_data.node_mem_map", "pglist_data.node_start_pfn",
    "pglist_data.node_spanned_pages", "pglist_data.node_id", "zone.free_area",
    "zone.vm_stat", "zone.spanned_pages", "free_area.free_list", "list_head.next",
    "list_head.prev", "printk_ringbuffer.desc_ring",
    "printk_ringbuffer.text_data_ring", "printk_ringbuffer.fail",
    "prb_desc_ring.count_bits", "prb_desc_ring.descs", "prb_desc_ring.infos",
    "prb_desc_ring.head_id", "prb_desc_ring.tail_id", "prb_desc.state_var",
    "prb_desc.text_blk_lpos", "prb_data_blk_lpos.begin", "prb_data_blk_lpos.next",
    "printk_info.seq", "printk_info.ts_nsec", "printk_info.text_len",
    "printk_info.caller_id", "printk_info.dev_info", "dev_printk_info.subsystem",
    "dev_printk_info.device", "prb_data_ring.size_bits", "prb_data_ring.data",
    "prb_data_ring.head_lpos", "prb_data_ring.tail_lpos", "latched_seq.val",
)
# fmt: on
_LENGTHS = {
    "zone.free_area": "zone.free_area",
    "free_area.free_list": "free_area.free_list",
    "printk_info_subsystem": "dev_printk_info.subsystem",
    "printk_info_device": "dev_printk_info.device",
}
# fmt: off
_CONSTANTS = (
    "NR_FREE_PAGES", "PG_lru", "PG_private", "PG_swapcache", "PG_swapbacked",
    "PG_slab", "PG_hwpoison",
)
# fmt: on
_PAGE_TYPES = ("slab", "buddy", "hugetlb", "offline", "unaccepted")
"""
A page's type is the upper byte of its map count since Linux kernel commit 4ffca5a96678
("mm: support only one page_type per page") (in v6.12). Before, no type has it.
"""


def layout_lines(layout: BtfLayout) -> Iterator[tuple[str, str]]:
    """Yield key and value of each line about structures."""
    for name in _SIZES:
        yield from _line(f"SIZE({name})", layout.size(name))
    for path in _OFFSETS:
        yield from _line(f"OFFSET({path})", layout.offset(*path.split(".")))
    # A typedef of a structure without a name.
    if layout.size("atomic_long_t") == 8:
        yield "OFFSET(atomic_long_t.counter)", "0"
    for name, path in _LENGTHS.items():
        yield from _line(f"LENGTH({name})", layout.length(*path.split(".")))
    for name in _CONSTANTS:
        yield from _line(f"NUMBER({name})", layout.constant(name))
    head = layout.constant("PG_head")
    if head is not None and 0 <= head < 64:
        yield "NUMBER(PG_head_mask)", str(1 << head)
    for name in _PAGE_TYPES:
        type = layout.constant(f"PGTY_{name}")
        if type is not None and 0x80 <= type <= 0xFF:
            key = f"NUMBER(PAGE_{name.upper()}_MAPCOUNT_VALUE)"
            yield key, str((type << 24) - (1 << 32))


def _line(key: str, value: int | None) -> Iterator[tuple[str, str]]:
    if value is not None:
        yield key, str(value)
