# SPDX-License-Identifier: GPL-2.0-or-later
"""Keep a VM's marks fresh."""

from kmemdump import Registry, VmBackend, capture, open_target

with open_target("qmp:vm.qmp") as vm:
    registry = Registry(vm.memory.ranges)
    registry.attach(VmBackend(vm.memory))

    first = capture(vm)
    registry.update(first.regions)
    again = capture(vm, known=first)
    change = registry.update(again.regions)
    print(f"{len(registry)} regions are registered, {len(change.added)} of them new")
