# SPDX-License-Identifier: GPL-2.0-or-later
"""Find what is known of a kernel's memory: structures, texts, stacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice

from drgn import Object, sizeof
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.ipc import (
    for_each_sysv_msg_queue,
    for_each_sysv_sem_array,
    for_each_sysv_shm,
)
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.net import for_each_netdev
from drgn.helpers.linux.percpu import per_cpu
from drgn.helpers.linux.timer import timer_base_for_each

from kmemdump.arch.architecture import arch_from_program
from kmemdump.areas import AREAS
from kmemdump.areas.crash import CRASH
from kmemdump.areas.crash_names import PER_CPU, VARIABLES
from kmemdump.kernel.attach import Kernel
from kmemdump.kernel.limits import MAX_TASKS
from kmemdump.kernel.printk import find_log_places
from kmemdump.kernel.program import OBJECTS
from kmemdump.kernel.tasks import readable_tasks
from kmemdump.redaction.codes import DATA, IDS, KEEP, NETWORK
from kmemdump.redaction.own import image, modules
from kmemdump.redaction.places import ABSENT, Known, Places
from kmemdump.redaction.reads import ByteRecorder

__all__ = ["find_known"]

_PF_KTHREAD = 0x00200000
_STACK_END_MAGIC = 0x57AC6E9D  # include/uapi/linux/magic.h; no overflow if it is there.
_WORD = 8
_MAX_STACK = 1 << 17
_MAX_ADDRESSES = 4096
_MAX_COMMAND_LINE = 4096
_MAX_TIMERS = 4096
_HARDWARE_ADDRESS = 32  # MAX_ADDR_LEN, include/linux/netdevice.h.


def find_known(kernel: Kernel, recorder: ByteRecorder) -> Known:
    """Find what is known of a kernel; what it lacks is left out."""
    places = Places(kernel, recorder)
    for find in (
        image,
        log,
        names,
        modules,
        variables,
        objects,
        tasks,
        other_stacks,
        timers,
        network,
        ipc,
    ):
        try:
            with recorder.unnoticed():
                find(places)
        except ABSENT as error:
            name = find.__name__.replace("_", " ")
            places.known.problems.append(f"{name}: {error}")
    return places.known


def log(places: Places) -> None:
    """The kernel log."""
    found = find_log_places(places.prog.read, places.kernel.vmcoreinfo)
    for address, size in found.whole:
        places.part(address, size, DATA)
    for address, size in found.structure:
        places.structure(address, size)
    for address, size in found.texts:
        places.text("log-text", address, size)


def names(places: Places) -> None:
    """Names of the machine, and the command line."""
    prog = places.prog
    name = prog["init_uts_ns"].name
    for member in ("nodename", "domainname"):
        field = name.member_(member)
        places.text("host-names", field.address_, sizeof(field))
    for member in ("sysname", "release", "version", "machine"):
        field = name.member_(member)
        places.own(field.address_, sizeof(field))
    line = prog["saved_command_line"].value_()
    places.string("command-line", line, _MAX_COMMAND_LINE)


def variables(places: Places) -> None:
    """Variables whose type is known, of each CPU where they are its own."""
    prog = places.prog
    for name in sorted({*VARIABLES, *(it for area in AREAS for it in area.variables)}):
        with suppress(*ABSENT):
            places.object(prog.variable(name))
    # crash reads these for sys and net; the first has no type that drgn needs.
    with suppress(*ABSENT):
        address = prog.symbol("shadow_timekeeper").address
        places.object(Object(prog, "struct timekeeper", address=address))
    with suppress(*ABSENT):
        places.object(prog["init_nsproxy"])
    for name in PER_CPU:
        for cpu in for_each_possible_cpu(prog):
            with suppress(*ABSENT):
                places.object(per_cpu(prog[name], cpu))


def objects(places: Places) -> None:
    """The objects that area crash reads whole."""
    places.prog.config[OBJECTS] = places.object
    try:
        for question in CRASH.questions:
            with suppress(*ABSENT):
                question.put(places.prog)
    finally:
        del places.prog.config[OBJECTS]


def tasks(places: Places) -> None:
    """Tasks: their names, and their stacks."""
    prog = places.prog
    size = min(prog["THREAD_SIZE"].value_(), _MAX_STACK)
    untagged = arch_from_program(prog).untagged
    for task in islice(readable_tasks(prog), MAX_TASKS):
        with suppress(*ABSENT):
            places.object(task[0])
        comm = task.comm
        try:
            of_kernel = bool(task.flags.value_() & _PF_KTHREAD)
        except ABSENT:
            of_kernel = False
        kind = "kernel-thread-names" if of_kernel else "task-names"
        places.text(kind, comm.address_, sizeof(comm))
        with suppress(*ABSENT):
            stack = untagged(task.stack.value_())
            places.stack(stack, size)
            if prog.read_u64(stack) == _STACK_END_MAGIC:
                places.part(stack, _WORD, KEEP)


def other_stacks(places: Places) -> None:
    """The stacks for interrupts and exceptions."""
    arch = arch_from_program(places.prog)
    for cpu in for_each_possible_cpu(places.prog):
        stack = arch.interrupt_stack(places.prog, cpu)
        if stack is not None:
            places.stack(stack.start, min(stack.size, _MAX_STACK))
        for stack in arch.exception_stacks(places.prog, cpu):
            places.stack(stack.start, min(stack.size, _MAX_STACK))


def timers(places: Places) -> None:
    """Timers: some are on the stacks of those who wait for them."""
    for cpu in for_each_possible_cpu(places.prog):
        with suppress(*ABSENT):
            for base in per_cpu(places.prog["timer_bases"], cpu):
                found = timer_base_for_each(base.address_of_())
                for timer in islice(found, _MAX_TIMERS):
                    places.object(timer[0])


def network(places: Places) -> None:
    """Names and addresses of the network's interfaces."""
    for device in islice(for_each_netdev(places.prog), _MAX_ADDRESSES):
        places.text("interface-names", device.name.address_, sizeof(device.name))
        with suppress(*ABSENT):
            places.object(device[0])
        with suppress(*ABSENT):
            places.part(device.dev_addr.value_(), _HARDWARE_ADDRESS, NETWORK)
        with suppress(*ABSENT):
            _addresses(places, device)


def _addresses(places: Places, device: Object) -> None:
    address = device.ip_ptr.ifa_list.read_() if device.ip_ptr else None
    for _ in range(_MAX_ADDRESSES):
        if not address:
            break
        places.object(address[0])
        label = address.ifa_label
        places.text("interface-names", label.address_, sizeof(label))
        address = address.ifa_next.read_()
    if device.ip6_ptr:
        head = device.ip6_ptr.addr_list.address_of_()
        found = list_for_each_entry("struct inet6_ifaddr", head, "if_list")
        for item in islice(found, _MAX_ADDRESSES):
            places.object(item[0])


def ipc(places: Places) -> None:
    """Owners of System V shared memory, semaphores and message queues."""
    namespace = places.prog["init_ipc_ns"].address_of_()
    for each, member in (
        (for_each_sysv_shm, "shm_perm"),
        (for_each_sysv_sem_array, "sem_perm"),
        (for_each_sysv_msg_queue, "q_perm"),
    ):
        with suppress(*ABSENT):
            _owners(places, each, namespace, member)


def _owners(
    places: Places,
    each: Callable[..., Iterator[Object]],
    namespace: Object,
    member: str,
) -> None:
    for item in islice(each(namespace), _MAX_ADDRESSES):
        permission = item.member_(member)
        for name in ("uid", "gid", "cuid", "cgid"):
            field = permission.member_(name)
            places.part(field.address_, sizeof(field), IDS)
