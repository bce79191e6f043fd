# SPDX-License-Identifier: GPL-2.0-or-later
"""Interrupts: descriptors, actions, and how often each fired on each CPU."""

from drgn import Program
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.irq import for_each_irq_desc, irq_desc_kstat_cpu
from drgn.helpers.linux.percpu import per_cpu

from kmemdump.areas.area import area
from kmemdump.questions.objects import each

__all__ = ["IRQ", "irq_counts"]


def irq_counts(prog: Program) -> None:
    """How often each interrupt fired on each CPU."""
    cpus = list(for_each_possible_cpu(prog))
    for cpu in cpus:
        per_cpu(prog["kstat"], cpu).read_()
        try:
            per_cpu(prog["irq_stat"], cpu).read_()  # x86
        except LookupError:
            continue
    for number, desc in each("interrupts", for_each_irq_desc(prog)):
        print(number, *(irq_desc_kstat_cpu(desc, cpu) for cpu in cpus))


IRQ = area(
    "irq",
    "interrupts, their handlers, and how often each fired",
    "irq",
    irq_counts,
    variables=("nr_irqs", "total_nr_irqs", "irq_err_count", "sparse_irqs"),
)
