# SPDX-License-Identifier: GPL-2.0-or-later
"""Gather a report from a kernel that is looked at from outside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import chain, islice

from drgn import Program
from drgn.helpers.linux.sched import loadavg

from kmemdump.arch.architecture import arch_from_program
from kmemdump.areas.stacks import ALL_STACKS
from kmemdump.coreimage import Manifest
from kmemdump.diagnosis.cause import find_cause
from kmemdump.diagnosis.death_kind import parse_death
from kmemdump.diagnosis.records import Cause, Cpu
from kmemdump.kernel.attach import Kernel
from kmemdump.kernel.held_locks import lockdep_stopped
from kmemdump.kernel.iomem import find_system_ram
from kmemdump.kernel.loaded_modules import loaded_modules
from kmemdump.kernel.lock_waits import find_lock_waits
from kmemdump.kernel.optional import optional
from kmemdump.memory.ranges import Range
from kmemdump.memory.reading import Budget
from kmemdump.report.fault import (
    choose_fault,
    fault_in_log,
    fault_in_memory,
    find_machine_name,
    lines_of_failure,
    trace_in_log,
)
from kmemdump.report.inspect import shorten
from kmemdump.report.lock_lines import held_locks_in_log, waits_in_log
from kmemdump.report.memory_map import map_memory
from kmemdump.report.observe import observe
from kmemdump.report.records import (
    UNDAMAGED,
    BlockedTask,
    Fault,
    KernelIdentity,
    Loss,
    MemoryUse,
    StackGroup,
)
from kmemdump.report.report import Report
from kmemdump.report.sections import SECTION_BUDGET, Sections
from kmemdump.report.system import (
    MEMORY,
    NAMES,
    busiest,
    find_taints,
    interrupts,
    make_interrupt,
    make_module,
)
from kmemdump.report.tasks import (
    all_tasks,
    blocked_tasks,
    group_stacks,
    make_blocked_task,
    make_task,
    sleeping_tasks,
)
from kmemdump.report.waits import find_locks, join_waits, make_locks, make_wait

__all__ = ["gather"]

_ALL = "what needs the kernel's symbols and types"
"""Everything but the log and the CPUs' registers."""
_MOST_LOSSES = 256
"""More regions than firmware has."""


def gather(
    kernel: Kernel,
    source: str,
    manifest: Manifest | None = None,
    damage: Sequence[str] = (),
    *,
    captured: datetime | None = None,
    held: Sequence[Range] = (),
    all_stacks: bool = True,
    budget: Budget = SECTION_BUDGET,
) -> Report:
    """
    Gather what happened to a kernel.

    Items that cannot be found are left out, and :attr:`Findings.missing` says why.

    :param source: Name of the target.
    :param manifest: The manifest of the core image.
    :param damage: Where the core image differs from its manifest.
    :param captured: When the memory was copied, if there is no manifest; now, if it
        belongs to a running machine.
    :param held: The physical memory that the target holds.
    :param all_stacks: Whether to find the stacks of all tasks.
    :param budget: Limit on the cost of each section of the report.
    """
    prog, info = kernel.prog, kernel.vmcoreinfo
    sections = Sections(kernel.recorder, budget)
    find = sections.find
    observed = observe(
        kernel,
        sections,
        captured=manifest.time if manifest else captured,
        marked=manifest.marked_at if manifest else None,
    )
    seen, log, time = observed.seen, observed.log, observed.time
    cpus = seen.cpus
    if manifest is not None:
        seen = replace(
            seen,
            capture_reason=manifest.cause,
            death=parse_death(manifest.death),
            after_reset=manifest.by_firmware,
        )
    cause = find_cause(seen)
    collect = sections.collect
    blocked = collect(
        "the blocked tasks", lambda: blocked_tasks(prog), make_blocked_task
    )
    waits = collect("the waits for locks", lambda: find_lock_waits(prog), make_wait)
    held_by = collect("the locks held", lambda: find_locks(prog), make_locks)
    locks = tuple(chain.from_iterable(held_by))
    names = _names(sections, prog)
    failure = lines_of_failure(log.records if log else (), cause)
    logged = fault_in_log(failure, names.get("machine"))
    in_memory = find(
        "the registers of the failure", lambda: _fault(prog, cpus, cause), None
    )
    ram: list[Range] = find("the RAM", lambda: find_system_ram(prog), [])
    return Report(
        source=source,
        kernel=KernelIdentity(info.osrelease, info.build_id, **names),
        time=time,
        cause=cause,
        cpus=sorted(cpus, key=lambda it: (it.number != cause.cpu, it.number)),
        fault=choose_fault(in_memory, logged),
        trace=trace_in_log(failure),
        blocked=blocked,
        waits=join_waits(waits, waits_in_log(log.records if log else ())),
        locks=locks or held_locks_in_log(log.records if log else ()),
        locks_stopped=bool(locks) and lockdep_stopped(prog),
        tasks=collect("the tasks", lambda: all_tasks(prog), make_task),
        stacks=_stacks(sections, prog, manifest) if all_stacks else (),
        load=find("the load", lambda: loadavg(prog), None),
        memory=_memory(sections, prog, info.page_size),
        memory_map=map_memory(manifest, held, ram),
        hardware=find_machine_name(log.records if log else ()),
        modules=collect("the modules", lambda: loaded_modules(prog), make_module),
        taints=find("the taints", lambda: find_taints(prog), ()),
        interrupts=busiest(
            collect("the interrupts", lambda: interrupts(prog), make_interrupt)
        ),
        log=log.records if log else (),
        log_lost=log.lost if log else 0,
        # The first record of a boot has number 0.
        log_overwritten=log.records[0].sequence if log and log.records else 0,
        redacted=(manifest.redacted or None) if manifest else None,
        missing=(
            *(Loss(UNDAMAGED, problem) for problem in shorten(damage)),
            *(
                (*observed.without_symbols, Loss(_ALL, kernel.problem))
                if kernel.problem is not None
                else (*sections.missing, *_incomplete(cpus, blocked, manifest))
            ),
            *_first(_not_copied(manifest), "regions"),
        ),
    )


def _fault(prog: Program, cpus: Sequence[Cpu], cause: Cause) -> Fault | None:
    """Return the CPU's state where it failed, as far as memory has it."""
    cpu = next((cpu for cpu in cpus if cpu.number == cause.cpu), None)
    if cpu is None or cause.frame is None or cause.frame >= len(cpu.frames):
        return None
    machine = arch_from_program(prog).name
    return optional(lambda: fault_in_memory(prog, machine, cpu, cause.frame or 0))


def _names(sections: Sections, prog: Program) -> dict[str, str | None]:
    return {
        field: sections.find(
            f"the kernel's {field.replace('_', ' ')}", partial(find, prog), None
        )
        for field, find in NAMES.items()
    }


def _stacks(
    sections: Sections, prog: Program, manifest: Manifest | None
) -> tuple[StackGroup, ...]:
    """Find the stacks of all tasks, if they were marked, or nothing was left out."""
    if manifest and all(it.name != ALL_STACKS.name for it in manifest.areas):
        return ()
    what = "the stacks of the tasks"
    return group_stacks(
        sections.collect(what, lambda: sleeping_tasks(prog), make_blocked_task)
    )


def _memory(sections: Sections, prog: Program, page_size: int) -> MemoryUse | None:
    """Find how memory was used; what is missing is ``None``, or all of it."""
    found: dict[str, int] = {}
    for name, count in MEMORY.items():
        words = name.replace("_", " ")
        pages = sections.find(f"the memory use: {words}", partial(count, prog), None)
        if pages is not None:
            found[name] = pages * page_size
    return MemoryUse(**found) if found else None


def _incomplete(
    cpus: Sequence[Cpu], blocked: Sequence[BlockedTask], manifest: Manifest | None
) -> Iterator[Loss]:
    for cpu in cpus:
        if cpu.problem is not None:
            yield Loss(f"the stack of CPU {cpu.number}", cpu.problem)
    for item in blocked:
        if item.problem is not None:
            yield Loss(f"the stack of {item.task.title}", item.problem)
    yield from _first(_incomplete_areas(manifest), "areas")


def _incomplete_areas(manifest: Manifest | None) -> Iterator[Loss]:
    for area in manifest.areas if manifest else ():
        if not area.complete:
            yield Loss(f"a part of area {area.name}", area.reason or "no reason given")


def _not_copied(manifest: Manifest | None) -> Iterator[Loss]:
    for region in manifest.regions if manifest else ():
        if region.captured < region.size:
            lost = region.size - region.captured
            yield Loss(f"{lost} bytes of region {region.name}", "could not be copied")


def _first(losses: Iterator[Loss], what: str) -> Iterator[Loss]:
    """Yield the first of them: a stranger's manifest may have a hundred thousand."""
    yield from islice(losses, _MOST_LOSSES)
    more = sum(1 for _ in losses)
    if more:
        yield Loss(f"{more} more {what}", "for reasons like these")
