# SPDX-License-Identifier: GPL-2.0-or-later
"""Keep a VM's marks fresh."""

from kmemdump import (
    Region,
    Registry,
    Selection,
    VmBackend,
    choose_areas,
    look,
    open_target,
)


def regions(capture):
    return [
        Region(0, name, r.start, r.size) for name, r in capture.marking.named_ranges()
    ]


target = open_target("qmp:vm.qmp")
selection = Selection(choose_areas())
registry = Registry(target.memory.ranges)
registry.attach(VmBackend(target.memory))

first = look(target, selection)
registry.update(regions(first))
before = {region.id for region in registry}

again = look(target, selection, known=first.kernel)
registry.update(regions(again))
new = {region.id for region in registry} - before
print(f"{len(registry)} regions are registered, {len(new)} of them new")
target.close()
