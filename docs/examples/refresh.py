# SPDX-License-Identifier: GPL-2.0-or-later
"""Keep a VM's marks fresh."""

from kmemdump import (
    Region,
    Registry,
    VmBackend,
    Wishes,
    choose_areas,
    open_target,
    take,
)


def regions(capture):
    return [
        Region(0, name, r.start, r.size) for name, r in capture.marks.named_ranges()
    ]


target = open_target("qmp:vm.qmp")
wishes = Wishes(choose_areas())
registry = Registry(target.memory.ranges)
registry.attach(VmBackend(target.memory))

first = take(target, wishes)
registry.update(regions(first))
before = {region.id for region in registry}

again = take(target, wishes, known=first.kernel)
registry.update(regions(again))
new = {region.id for region in registry} - before
print(f"{len(registry)} regions are registered, {len(new)} of them new")
target.close()
