# SPDX-License-Identifier: GPL-2.0-or-later
"""Area workqueues: which work waits, and for which worker? For tasks that hang."""

from drgn import Object
from drgn.helpers.linux.idr import idr_for_each_entry
from drgn.helpers.linux.list import list_for_each_entry

from kmemdump import area


def pending_work(prog):
    """Each pool of workers, and the functions that wait for one of them."""
    # BTF does not know the types of variables; the kernel's source does.
    address = prog.symbol("worker_pool_idr").address
    pools = Object(prog, "struct idr", address=address)
    for number, pool in idr_for_each_entry(pools.address_of_(), "struct worker_pool"):
        workers, idle = pool.nr_workers.value_(), pool.nr_idle.value_()
        print(f"pool {number}: CPU {pool.cpu.value_()}, {workers} workers, {idle} idle")
        for work in list_for_each_entry(
            "struct work_struct", pool.worklist.address_of_(), "entry"
        ):
            print(f"  {prog.symbol(work.func).name}")
        # What each worker does now, and its task.
        for worker in list_for_each_entry(
            "struct worker", pool.workers.address_of_(), "node"
        ):
            function = worker.current_func.value_()
            if function:
                task = worker.task
                name = prog.symbol(function).name
                print(
                    f"  {name}, in {task.comm.string_().decode()} ({task.pid.value_()})"
                )


AREA = area("workqueues", "which work waits for which worker", pending_work)
