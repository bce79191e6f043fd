# SPDX-License-Identifier: GPL-2.0-or-later
"""Sections of a report: kernel, time, load, memory, modules, taints, interrupts."""

from __future__ import annotations

import re
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
    for_each_module,
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

from kmemdump.kernel.limits import MAX_INTERRUPTS, MAX_MODULES
from kmemdump.report.records import (
    Interrupt,
    KernelIdentity,
    MemoryUse,
    Module,
    Taint,
)
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = [
    "decode",
    "find_date",
    "find_interrupts",
    "find_kernel",
    "find_memory",
    "find_modules",
    "find_taints",
    "find_uptime",
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


def find_kernel(prog: Program, info: VmcoreInfo) -> KernelIdentity:
    """Return the kernel's names: release, build, host."""
    names = prog["init_uts_ns"].name

    def name(member: str) -> str:
        return decode(names.member_(member).string_())

    return KernelIdentity(
        release=info.osrelease,
        build_id=info.build_id,
        version=name("version"),
        machine=name("machine"),
        hostname=name("nodename"),
        command_line=decode(prog["saved_command_line"].string_()),
    )


def find_date(prog: Program) -> datetime:
    """Return the time of the kernel's clock."""
    seconds = ktime_get_coarse_real_ns(prog).value_() / 1e9
    return datetime.fromtimestamp(seconds, UTC)


def find_uptime(prog: Program) -> float:
    """Return the seconds since boot."""
    nanoseconds: int = ktime_get_coarse_boottime_ns(prog).value_()
    return nanoseconds / 1e9


def find_memory(prog: Program, page_size: int) -> MemoryUse:
    """Return how memory was used."""

    def node(*names: str) -> int:
        pages: int = sum(global_node_page_state(prog, prog[name]) for name in names)
        return pages * page_size

    swap = swap_total_usage(prog)
    return MemoryUse(
        total=totalram_pages(prog) * page_size,
        free=nr_free_pages(prog) * page_size,
        anonymous=node("NR_ANON_MAPPED"),
        file=node("NR_FILE_PAGES"),
        # Counted in pages, though its name says bytes: Linux kernel commit
        # d42f3245c7e2 ("mm: memcg: convert vmstat slab counters to bytes") (in v5.9).
        slab=node("NR_SLAB_RECLAIMABLE_B", "NR_SLAB_UNRECLAIMABLE_B"),
        swap_total=swap.pages * page_size,
        swap_free=swap.free_pages * page_size,
    )


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


def find_modules(prog: Program) -> tuple[Module, ...]:
    """Return the loaded modules, the newest first."""
    return tuple(
        _module(module) for module in islice(for_each_module(prog), MAX_MODULES)
    )


def _module(module: Object) -> Module:
    regions = [(start, size) for start, size in module_address_regions(module) if size]
    return Module(
        name=decode(module.name.string_()),
        address=min((start for start, _ in regions), default=None),
        size=sum(size for _, size in regions),
        taints=_taints(module_taints(module)),
    )


def find_interrupts(prog: Program) -> tuple[Interrupt, ...]:
    """Return the interrupts that fired, the busiest first."""
    cpus = list(for_each_possible_cpu(prog))
    found = []
    for number, desc in islice(for_each_irq_desc(prog), MAX_INTERRUPTS):
        count = sum(irq_desc_kstat_cpu(desc, cpu) for cpu in cpus)
        if count:
            names = tuple(decode(name) for name in irq_desc_action_names(desc))
            found.append(Interrupt(number, names, count))
    return tuple(sorted(found, key=lambda item: (-item.count, item.number)))
