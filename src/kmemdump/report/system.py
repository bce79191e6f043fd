# SPDX-License-Identifier: GPL-2.0-or-later
"""Sections of a report: kernel, time, load, memory, modules, taints, interrupts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice

from drgn import Object, Program
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.irq import (
    for_each_irq_desc,
    irq_desc_action_names,
    irq_desc_kstat_cpu,
)
from drgn.helpers.linux.mm import totalram_pages
from drgn.helpers.linux.module import (
    module_address_regions,
    module_taints,
)
from drgn.helpers.linux.panic import tainted
from drgn.helpers.linux.swap import swap_total_usage
from drgn.helpers.linux.timekeeping import (
    ktime_get_coarse_boottime_ns,
    ktime_get_coarse_real_ns,
)
from drgn.helpers.linux.vmstat import global_node_page_state, nr_free_pages

from kmemdump.kernel.limits import MAX_INTERRUPTS
from kmemdump.report.records import (
    Interrupt,
    Module,
    Taint,
)

__all__ = [
    "MEMORY",
    "NAMES",
    "busiest",
    "decode",
    "find_date",
    "find_taints",
    "find_uptime",
    "interrupts",
    "make_interrupt",
    "make_module",
    "taints_of_letters",
]

# Linux Documentation/admin-guide/tainted-kernels.rst.
_TAINTS = {
    "P": "a module with a proprietary licence was loaded",
    "F": "a module was loaded by force",
    "S": "the processors are used out of their specification",
    "R": "a module was removed by force",
    "M": "the processor reported a machine check",
    "B": "the kernel found damaged page structures",
    "U": "a user asked for this mark",
    "D": "the kernel had an oops or a bug",
    "A": "an ACPI table was overridden",
    "W": "the kernel warned",
    "C": "a staging driver was loaded",
    "I": "the kernel works around a severe bug of the firmware",
    "O": "a module was loaded that is not part of the kernel",
    "E": "a module without a valid signature was loaded",
    "L": "a CPU was locked up",
    "K": "the kernel was live-patched",
    "X": "the distribution's own mark",
    "T": "the kernel was built with randomised structures",
    "N": "a test of the kernel itself was run",
    "J": "userspace used a debugging interface that changes the hardware",
}


def decode(data: bytes) -> str:
    """Return a dead kernel's string; bytes that are not UTF-8 are escaped."""
    return data.decode("utf-8", "backslashreplace")


def _uts_name(member: str) -> Callable[[Program], str]:
    return lambda prog: decode(prog["init_uts_ns"].name.member_(member).string_())


NAMES: Mapping[str, Callable[[Program], str]] = {
    "version": _uts_name("version"),
    "machine": _uts_name("machine"),
    "hostname": _uts_name("nodename"),
    "command_line": lambda prog: decode(prog["saved_command_line"].string_()),
}
"""The kernel's names: fields of :class:`KernelIdentity`, and how to find each."""


def find_date(prog: Program) -> datetime:
    """Return the time of the kernel's clock."""
    seconds = ktime_get_coarse_real_ns(prog).value_() / 1e9
    return datetime.fromtimestamp(seconds, UTC)


def find_uptime(prog: Program) -> float:
    """Return the seconds since boot."""
    nanoseconds: int = ktime_get_coarse_boottime_ns(prog).value_()
    return nanoseconds / 1e9


def _node_pages(*names: str) -> Callable[[Program], int]:
    def count(prog: Program) -> int:
        return sum(global_node_page_state(prog, prog[name]) for name in names)

    return count


MEMORY: Mapping[str, Callable[[Program], int]] = {
    "total": totalram_pages,
    "free": nr_free_pages,
    "anonymous": _node_pages("NR_ANON_MAPPED"),
    "file": _node_pages("NR_FILE_PAGES"),
    # Counted in pages, though its name says bytes: Linux kernel commit d42f3245c7e2
    # ("mm: memcg: convert vmstat slab counters to bytes") (in v5.9).
    "slab": _node_pages("NR_SLAB_RECLAIMABLE_B", "NR_SLAB_UNRECLAIMABLE_B"),
    "swap_total": lambda prog: swap_total_usage(prog).pages,
    "swap_free": lambda prog: swap_total_usage(prog).free_pages,
}
"""How memory was used, in pages: fields of :class:`MemoryUse`, and how to find each."""


def find_taints(prog: Program) -> tuple[Taint, ...]:
    """Return the reasons why the kernel is tainted."""
    # A flag that is not set is a space, or "G" for proprietary modules. Without debug
    # info, drgn may read past the end of the table.
    return _taints(re.sub("[^A-Z]|G", "", tainted(prog)))


def _taints(letters: str) -> tuple[Taint, ...]:
    return tuple(
        Taint(letter, _TAINTS.get(letter, "a mark that kmemdump does not know"))
        for letter in letters
    )


def taints_of_letters(letters: str) -> tuple[Taint, ...]:
    """Return the taints that the kernel's letters name; others are left out."""
    return tuple(Taint(x, _TAINTS[x]) for x in dict.fromkeys(letters) if x in _TAINTS)


def make_module(module: Object) -> Module:
    """Return the record of a module."""
    regions = [(start, size) for start, size in module_address_regions(module) if size]
    return Module(
        name=decode(module.name.string_()),
        address=min((start for start, _ in regions), default=None),
        size=sum(size for _, size in regions),
        taints=_taints(module_taints(module)),
        build_id=_build_id(module),
    )


def _build_id(module: Object) -> str | None:
    """Return the build id of a module, if drgn knows the module."""
    try:
        found = module.prog_.linux_kernel_loadable_module(module).build_id
    except LookupError:
        return None
    return found.hex() if found else None


def interrupts(prog: Program) -> Iterator[tuple[int, Object]]:
    """Yield the numbers of interrupts, and what describes them."""
    yield from islice(for_each_irq_desc(prog), MAX_INTERRUPTS)


def make_interrupt(found: tuple[int, Object]) -> Interrupt:
    """Return the record of an interrupt."""
    number, desc = found
    cpus = for_each_possible_cpu(desc.prog_)
    count = sum(irq_desc_kstat_cpu(desc, cpu) for cpu in cpus)
    names = irq_desc_action_names(desc) if count else ()
    return Interrupt(number, tuple(map(decode, names)), count)


def busiest(found: Iterable[Interrupt]) -> tuple[Interrupt, ...]:
    """Return the interrupts that fired, the busiest first."""
    fired = (item for item in found if item.count)
    return tuple(sorted(fired, key=lambda item: (-item.count, item.number)))
