# SPDX-License-Identifier: GPL-2.0-or-later
"""
Memory of tasks that will start: where the kernel will put them.

A firmware dumps what was marked at the last look. A task that started since is most
likely where a task was before: in a free object of the slab cache of ``task_struct``,
on one of the stacks that the kernel keeps for reuse.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from drgn import Object, Program, cast
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.mm import page_to_virt
from drgn.helpers.linux.mmzone import for_each_online_pgdat
from drgn.helpers.linux.nodemask import for_each_online_node
from drgn.helpers.linux.percpu import per_cpu, per_cpu_ptr

from kmemdump.areas.area import area
from kmemdump.areas.readers import MAX_VARIABLE, cpus, read_pages
from kmemdump.memory.physical import PAGE_SIZE
from kmemdump.questions.objects import each

__all__ = ["FREE_PAGES", "NEW_TASKS"]

_MAX_SLABS = 64
"""Slabs, of 32 KiB as a rule; the kernel takes the first ones first."""
_MAX_OBJECTS = 256
_ORDER_SHIFT = 16
"""In struct kmem_cache_order_objects (OO_SHIFT, Linux mm/slub.c)."""
_MAX_ORDER = 10
_MOVABILITIES = 3
"""Lists of each order; that of MIGRATE_UNMOVABLE, the kernel's own, is the first."""
_NEXT_PAGES = ((0, 64), (3, 2))
"""
Orders, and how many of each are marked: pages for sixteen stacks, and two slabs.
"""


def free_tasks(prog: Program) -> None:
    """The slabs that new tasks come from."""
    cache = prog["task_struct_cachep"].read_()
    order = min(cache.oo.x.value_() >> _ORDER_SHIFT, _MAX_ORDER)
    for slab in each("slabs", islice(_slabs(prog, cache), _MAX_SLABS)):
        start = page_to_virt(cast("struct page *", slab)).value_()
        read_pages(prog, start, min(PAGE_SIZE << order, MAX_VARIABLE))
    for task in each("objects", islice(_in_sheaves(prog, cache), _MAX_OBJECTS)):
        read_pages(prog, task.value_(), min(cache.size.value_(), MAX_VARIABLE))


def _slabs(prog: Program, cache: Object) -> Iterator[Object]:
    """Yield slabs with free objects, those of each CPU first."""
    # A struct page until Linux kernel commit d122019bf061 ("mm: Split slab into its
    # own type") (in v5.17). Without per-CPU slabs, a CPU has sheaves of objects.
    for cpu in cpus(prog) if hasattr(cache, "cpu_slab") else ():
        local = per_cpu_ptr(cache.cpu_slab, cpu)
        name = "slab" if hasattr(local, "slab") else "page"
        if local.member_(name):
            yield local.member_(name).read_()
        if hasattr(local, "partial"):
            slab = local.partial.read_()
            while slab:
                yield slab
                slab = slab.next.read_()
    try:
        kind = prog.type("struct slab")
    except LookupError:
        kind = prog.type("struct page")
    for number in for_each_online_node(prog):
        # Linux kernel commit "slab: decouple pointer to barn from kmem_cache_node" (in
        # v7.1) put another structure around the pointer.
        if hasattr(cache, "per_node"):
            node = cache.per_node[number].node.read_()
        else:
            node = cache.node[number].read_()
        partial = node.partial.address_of_()
        yield from list_for_each_entry(kind, partial, "slab_list")


def _in_sheaves(prog: Program, cache: Object) -> Iterator[Object]:
    """Yield the free objects that each CPU keeps."""
    # Since Linux kernel commit 2d517aa09bbc ("slab: add opt-in caching layer of percpu
    # sheaves") (in v6.18).
    if not hasattr(cache, "cpu_sheaves") or not cache.cpu_sheaves:
        return
    for cpu in cpus(prog):
        local = per_cpu_ptr(cache.cpu_sheaves, cpu)
        for sheaf in (local.main.read_(), local.spare.read_()):
            if sheaf:
                for number in range(min(sheaf.size.value_(), _MAX_OBJECTS)):
                    yield sheaf.objects[number].read_()


def free_pages(prog: Program) -> None:
    """The pages that each CPU takes next, for stacks and slabs that are new."""
    for zone in _zones(prog):
        # Since Linux kernel commit 28f836b6777b ("mm/page_alloc: split per cpu page
        # lists and zone stats") (in v5.14).
        if not hasattr(zone, "per_cpu_pageset"):
            return
        for cpu in cpus(prog):
            lists = per_cpu_ptr(zone.per_cpu_pageset, cpu).lists
            for order, number in _NEXT_PAGES:
                index = order * _MOVABILITIES
                if index < lists.type_.length:
                    head = lists[index].address_of_()
                    pages = list_for_each_entry("struct page", head, "lru")
                    for page in islice(pages, number):
                        start = page_to_virt(page).value_()
                        read_pages(prog, start, PAGE_SIZE << order)


def _zones(prog: Program) -> Iterator[Object]:
    for node in for_each_online_pgdat(prog):
        for number in range(min(node.nr_zones.value_(), len(node.node_zones))):
            yield node.node_zones[number]


def cached_stacks(prog: Program) -> None:
    """The stacks that each CPU keeps for new tasks (CONFIG_VMAP_STACK)."""
    try:
        stacks = prog["cached_stacks"]
    except LookupError:
        return
    size = min(prog["THREAD_SIZE"].value_(), MAX_VARIABLE)
    for cpu in cpus(prog):
        for stack in per_cpu(stacks, cpu):
            area = stack.read_()
            if area:
                read_pages(prog, area.addr.value_(), size)


NEW_TASKS = area(
    "new-tasks",
    "where tasks that start later will be: free objects and stacks kept for reuse",
    free_tasks,
    cached_stacks,
    early=True,
)
FREE_PAGES = area(
    "free-pages",
    "the next free pages, for more new tasks; they hold what programs left there",
    free_pages,
    default=False,
)
