# SPDX-License-Identifier: GPL-2.0-or-later
"""
Memory that an unpatched ``crash`` reads beyond drgn's questions.

``crash`` reads whole structures where drgn reads members, reads kernel text where drgn
needs none, and does not start if certain pages are missing. Its reads were found by
tracing ``crash`` 8.0.2 on whole dumps, from the errors of 8.0.6 on core images, and in
its sources, whose functions are named below. The ``struct page`` of all memory, which
``kmem -i`` adds up, is left out because it grows with RAM.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import islice

from drgn import FaultError, Object, ObjectAbsentError, Program, Symbol, sizeof
from drgn.helpers.linux.fs import for_each_file, for_each_mount
from drgn.helpers.linux.irq import for_each_irq_desc
from drgn.helpers.linux.mm import for_each_vma, for_each_vmap_area
from drgn.helpers.linux.mmzone import for_each_online_pgdat
from drgn.helpers.linux.module import for_each_module, module_address_regions
from drgn.helpers.linux.net import for_each_netdev
from drgn.helpers.linux.pid import find_task

from kmemdump.areas.area import area
from kmemdump.areas.crash_names import PER_CPU, STRING_TABLES, VARIABLES
from kmemdump.areas.crash_stacks import stacks, text
from kmemdump.areas.crash_trees import character_devices, numbers, trees
from kmemdump.areas.readers import (
    MAX_ENTRIES,
    MAX_STRING,
    MAX_VARIABLE,
    cpus,
    main_tasks,
    per_cpu_offset,
    read_object,
    read_pages,
    read_path,
    read_string,
    symbols,
)
from kmemdump.errors import UnsupportedError
from kmemdump.kernel.task_list import all_tasks
from kmemdump.memory.physical import PAGE_SIZE
from kmemdump.memory.ranges import ADDRESS_SPACE
from kmemdump.questions.objects import each
from kmemdump.questions.question import Question

__all__ = ["CRASH"]

_NOTES = 512  # Larger than note_buf_t: an NT_PRSTATUS and the end.
_MAX_LOG = 16 << 20
_MAX_MODULE_BYTES = 4 << 20
_MAX_SECTION_ROOTS = 4 << 20


def _variables(prog: Program) -> None:
    for name in each("variables", VARIABLES):
        for symbol in symbols(prog, name):
            read_pages(prog, symbol.address, _size(symbol))


def _size(symbol: Symbol) -> int:
    return min(symbol.size or MAX_STRING, MAX_VARIABLE)


def _strings(prog: Program) -> None:
    for name in each("tables", STRING_TABLES):
        for symbol in symbols(prog, name):
            data = prog.read(symbol.address, min(symbol.size, PAGE_SIZE) // 8 * 8)
            for (word,) in struct.iter_unpack("<Q", data):
                if word >> 63:
                    read_string(prog, word)


def _per_cpu_variables(prog: Program) -> None:
    offsets = [per_cpu_offset(prog, cpu) for cpu in cpus(prog)]
    for name in each("variables", PER_CPU):
        for symbol in symbols(prog, name):
            for offset in offsets:
                address = (symbol.address + offset) % ADDRESS_SPACE
                read_pages(prog, address, _size(symbol))


def _memory_sections(prog: Program) -> None:
    # sparse_mem_init() reads the table of pointers whole: 16 KiB, or 1 MiB with 5-level
    # page tables.
    table = prog.read_u64(prog.symbol("mem_section").address)
    size = 8 * prog["NR_SECTION_ROOTS"].value_()
    if size > _MAX_SECTION_ROOTS:
        raise ValueError(f"{size} bytes of mem_section are too many")
    data = prog.read(table, size)
    roots = (root for (root,) in struct.iter_unpack("<Q", data) if root)
    for root in islice(roots, MAX_ENTRIES):
        read_pages(prog, root, PAGE_SIZE)


def _slab_cache(prog: Program) -> None:
    # kmem_cache_init_slub() reads the size of the caches' own cache.
    cache = prog.read_u64(prog.symbol("kmem_cache").address)
    read_object(Object(prog, "struct kmem_cache", address=cache))


def _nodes(prog: Program) -> None:
    for node in islice(for_each_online_pgdat(prog), MAX_ENTRIES):
        # node_zonelists, between these two, is large and not read.
        read_object(node.node_zones)
        rest = node.nr_zones.address_ or 0
        size = node.value_() + sizeof(node[0]) - rest
        read_pages(prog, rest, min(size, MAX_VARIABLE))


def _log(prog: Program) -> None:
    # dump_lockless_record_log() reads descriptors, infos and text whole.
    prb = Object(
        prog,
        "struct printk_ringbuffer *",
        value=prog.read_u64(prog.symbol("prb").address),
    )
    descriptors, text = prb.desc_ring, prb.text_data_ring
    bits = descriptors.count_bits.value_(), text.size_bits.value_()
    if max(bits) > 31:  # LOG_BUF_LEN_MAX
        raise ValueError(f"prb says 2**{bits[0]} records in 2**{bits[1]} bytes")
    pieces = (
        (descriptors.descs, sizeof(descriptors.descs[0]) << bits[0]),
        (descriptors.infos, sizeof(descriptors.infos[0]) << bits[0]),
        (text.data, 1 << bits[1]),
    )
    size = sum(size for _, size in pieces)
    if size > _MAX_LOG:
        raise UnsupportedError(f"the log takes {size} bytes, more than {_MAX_LOG}")
    for start, length in pieces:
        read_pages(prog, start.value_(), length)


def _modules(prog: Program) -> None:
    # store_module_kallsyms_v2() reads every module whole: its code, data, symbols
    # and unwind tables.
    sizes = []
    for module in islice(for_each_module(prog), MAX_ENTRIES):
        read_object(module[0])
        regions = [item for item in module_address_regions(module) if item[1]]
        sizes.append((sum(size for _, size in regions), regions))
    total = 0
    for size, regions in sorted(sizes):
        total += size
        if total <= _MAX_MODULE_BYTES:
            for region in each(f"regions of {total}", regions):
                read_pages(prog, *region)
    if total > _MAX_MODULE_BYTES:
        raise UnsupportedError(
            f"modules take {total} bytes; the largest are left out to stay below "
            f"{_MAX_MODULE_BYTES}"
        )


def _crash_notes(prog: Program) -> None:
    # arm64_get_crash_notes() reads them even if kdump has written none.
    for symbol in symbols(prog, "crash_notes"):
        notes = prog.read_u64(symbol.address)
        if notes:
            for cpu in cpus(prog):
                address = (notes + per_cpu_offset(prog, cpu)) % ADDRESS_SPACE
                read_pages(prog, address, _NOTES)


def _all_tasks(prog: Program) -> None:
    # fill_task_struct() reads every task whole, get_task_mem_usage() its page counters.
    # 8.0.2 finds only running tasks.
    offsets = [per_cpu_offset(prog, cpu) for cpu in cpus(prog)]
    for task in each("tasks", islice(all_tasks(prog), MAX_ENTRIES)):
        read_object(task[0])
        if task.mm:
            read_object(task.mm[0])
            for counter in _page_counters(task.mm):
                for offset in offsets:
                    read_pages(prog, (counter + offset) % ADDRESS_SPACE, 4)


def _page_counters(mm: Object) -> list[int]:
    """Return the addresses of a memory map's counters, without per-CPU offsets."""
    # Since Linux kernel commit f1a7941243c1 ("mm: convert mm's rss stats into
    # percpu_counter") (in v6.2). Before, the counters were in the mm_struct itself.
    try:
        return [counter.counters.value_() for counter in mm.rss_stat]
    except TypeError:
        return []


def _tasks(prog: Program) -> None:
    for task in main_tasks(prog):
        read_object(task[0])
        for pointer in (task.mm, task.active_mm, task.signal, task.sighand):
            if pointer:
                read_object(pointer[0])


def _first_process(prog: Program) -> None:
    # vm 1 and files 1 read these structures whole.
    task = find_task(prog, 1)
    if not task:
        return
    read_object(task.fs[0])
    read_object(task.files[0])
    for _, file in islice(for_each_file(task), MAX_ENTRIES):
        read_object(file[0])
        read_object(file.f_inode[0])
        read_path(file.f_path.dentry)
    if task.mm:
        for vma in islice(for_each_vma(task.mm), MAX_ENTRIES):
            read_object(vma[0])
            if vma.vm_file:
                read_object(vma.vm_file[0])
                read_path(vma.vm_file.f_path.dentry)


def _mounts(prog: Program) -> None:
    read_object(prog["init_task"].nsproxy.mnt_ns[0])
    for mount in each("mounts", islice(for_each_mount(prog), MAX_ENTRIES)):
        read_object(mount[0])
        read_string(prog, mount.mnt_devname.value_())
        super_block = mount.mnt.mnt_sb
        read_object(super_block[0])
        read_object(super_block.s_type[0])
        read_string(prog, super_block.s_type.name.value_())
        for dentry in (mount.mnt.mnt_root, mount.mnt_mountpoint):
            read_path(dentry)


def _interrupts(prog: Program) -> None:
    for _, descriptor in each(
        "interrupts", islice(for_each_irq_desc(prog), MAX_ENTRIES)
    ):
        read_object(descriptor[0])
        action = descriptor.action
        for _ in range(MAX_ENTRIES):
            if not action:
                break
            read_object(action[0])
            read_string(prog, action.name.value_())
            action = action.next


def _network_devices(prog: Program) -> None:
    for device in each("devices", islice(for_each_netdev(prog), MAX_ENTRIES)):
        read_object(device[0])
        if device.ip_ptr:
            read_object(device.ip_ptr[0])


def _vmalloc_areas(prog: Program) -> None:
    # kmem -v
    for mapped in each("areas", islice(for_each_vmap_area(prog), MAX_ENTRIES)):
        read_object(mapped[0])
        if mapped.vm:
            read_object(mapped.vm[0])


def _need(read: Callable[[Program], None]) -> Question:
    """
    Return a question that reads what crash needs.

    If it fails, the others go on.
    """

    def put(prog: Program) -> None:
        try:
            read(prog)
        except (
            AttributeError,
            FaultError,
            LookupError,
            ObjectAbsentError,
            UnsupportedError,
            ValueError,
        ) as error:
            text = f"crash will miss something: {error}".replace("\n", " ")
            raise UnsupportedError(text) from error

    name = read.__name__.strip("_").replace("_", " ")
    return Question(name, put, repeatable=False)


_NEEDS: tuple[Callable[[Program], None], ...] = (
    _variables,
    _strings,
    _per_cpu_variables,
    _memory_sections,
    _slab_cache,
    _nodes,
    _log,
    _modules,
    _crash_notes,
    numbers,
    _all_tasks,
    _tasks,
    _first_process,
    _mounts,
    _interrupts,
    trees,
    character_devices,
    _network_devices,
    _vmalloc_areas,
    text,
    stacks,
)


CRASH = area(
    "crash",
    "what an unpatched crash reads beyond all that",
    *(_need(read) for read in _NEEDS),
)
