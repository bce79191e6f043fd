# SPDX-License-Identifier: GPL-2.0-or-later
"""
What hangs on the kernel's trees, and their nodes, which ``crash`` reads whole.

drgn reads those members of a node that lead to what it looks for.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from drgn import FaultError, Object, Program
from drgn.helpers.linux.pid import find_task, for_each_pid

from kmemdump.areas.readers import MAX_ENTRIES, read_object
from kmemdump.questions.objects import each

__all__ = ["character_devices", "numbers", "tree_nodes", "trees"]

_SMALLEST_NODE = 4096
"""Entries up to it are no nodes: xa_is_node()."""
_IS_NODE = 2
"""The lowest two bits of a root, or of a slot of an XArray, that leads to a node."""
_MAPLE_NODE = 256
_MAX_LEVEL = 32
"""Namespaces of a process: MAX_PID_NS_LEVEL."""


def numbers(prog: Program) -> None:
    """Read each ``struct pid`` whole: refresh_xarray_task_table() finds tasks by it."""
    for pid in each("numbers", islice(for_each_pid(prog), MAX_ENTRIES)):
        read_object(pid[0])
        # An array without a length since Linux kernel commit b69f0aeb0689 ("pid:
        # Replace struct pid 1-element array with flex-array") (in v6.5).
        for level in range(min(pid.level.value_(), _MAX_LEVEL) + 1):
            read_object(pid.numbers[level])


def trees(prog: Program) -> None:
    """Read trees of numbers, interrupts and mappings: do_xarray(), do_maple_tree()."""
    roots = [prog["init_pid_ns"].idr.idr_rt]
    # A maple tree since Linux kernel commit 721255b9826b ("genirq: Use a maple tree for
    # interrupt descriptor management") (in v6.5).
    for name in ("sparse_irqs", "irq_desc_tree"):
        try:
            roots.append(prog[name])
        except LookupError:
            continue
    task = find_task(prog, 1)
    # Since Linux kernel commit d4af56c5c7c6 ("mm: start tracking VMAs with maple tree")
    # (in v6.1), beside a list.
    if task and task.mm and prog.type("struct mm_struct").has_member("mm_mt"):
        roots.append(task.mm.mm_mt)
    for root in roots:
        for node in islice(tree_nodes(root), MAX_ENTRIES):
            read_object(node)


def tree_nodes(tree: Object) -> Iterator[Object]:
    """
    Yield the nodes of a tree; of a damaged one, each once.

    :param tree: ``struct xarray`` or ``struct maple_tree``
    :raises drgn.FaultError: If its first node cannot be read.
    """
    is_maple = tree.type_.has_member("ma_root")
    root = (tree.ma_root if is_maple else tree.xa_head).value_()
    if root & 3 != _IS_NODE or root <= _SMALLEST_NODE:
        return
    below = _below_maple_node if is_maple else _below_node
    mask = -_MAPLE_NODE if is_maple else ~_IS_NODE
    type = tree.prog_.type("struct maple_node" if is_maple else "struct xa_node")
    waiting, seen = [root], set()
    while waiting:
        entry: int = waiting.pop()
        address = entry & mask
        if entry <= _SMALLEST_NODE or address in seen:
            continue
        seen.add(address)
        node = Object(tree.prog_, type, address=address)
        yield node
        try:
            waiting += below(node, entry)
        except FaultError:
            # What is in slots that are not in use may lead nowhere.
            if entry == root:
                raise


def _below_node(node: Object, entry: int) -> list[int]:
    if not node.shift:
        return []
    return [it for it in node.slots.value_() if it & 3 == _IS_NODE]


def _below_maple_node(node: Object, entry: int) -> list[int]:
    match entry >> 3 & 15:  # enum maple_type
        case 2:
            found: list[int] = node.mr64.slot.value_()
        case 3:
            found = node.ma64.slot.value_()
        case _:
            return []  # A leaf.
    return found


def character_devices(prog: Program) -> None:
    """Read the map of character devices: char_device_struct_dump() of dev."""
    devices = prog["cdev_map"]
    read_object(devices[0])
    for probe in devices.probes:
        probe = probe.read_()
        for _ in range(MAX_ENTRIES):
            if not probe:
                break
            read_object(probe[0])
            probe = probe.next.read_()
