# SPDX-License-Identifier: GPL-2.0-or-later
"""Area slabs: which kind of object ate the memory? For leaks, and for OOM panics."""

from drgn.helpers.linux.slab import for_each_slab_cache

from kmemdump import area


def biggest_slabs(prog):
    """The slab caches that have the most memory, by what each counts itself."""
    found = []
    for cache in for_each_slab_cache(prog):
        slabs = 0
        for node in range(prog["nr_node_ids"].value_()):
            if cache.node[node]:
                slabs += cache.node[node].nr_slabs.counter.value_()
        # The lower 16 bits of "oo" are objects in a slab, the others its order.
        size = slabs << (cache.oo.x.value_() >> 16) << prog["PAGE_SHIFT"].value_()
        found.append((size, cache.name.string_().decode()))
    for size, name in sorted(found, reverse=True)[:10]:
        print(f"{size // 1024:8} KiB  {name}")


AREA = area("slabs", "which kind of object has the memory", biggest_slabs)
