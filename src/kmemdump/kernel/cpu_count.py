# SPDX-License-Identifier: GPL-2.0-or-later
"""
How many CPUs a kernel can have at most.

drgn looks at as many bits of a CPU mask as the variable ``nr_cpu_ids`` says, and takes
what lies behind the mask for more of it. Of a damaged or hostile kernel, that are two
billion, in each question that asks for CPUs.
"""

from __future__ import annotations

from drgn import FaultError, FindObjectFlags, Object, Program, sizeof

from kmemdump.kernel.limits import MAX_CPUS

__all__ = ["bound_cpu_count"]

_COUNT = "nr_cpu_ids"
_FINDER = "kmemdump_cpu_count"


def bound_cpu_count(prog: Program) -> None:
    """Let drgn find no more CPUs than a mask has bits."""
    most: int | None = None

    def find(
        prog: Program, name: str, flags: FindObjectFlags, _filename: str | None
    ) -> Object | None:
        nonlocal most
        if name != _COUNT or not flags & FindObjectFlags.VARIABLE:
            return None
        try:
            if most is None:
                bits = 8 * sizeof(prog.type("struct cpumask"))
                most = min(bits, MAX_CPUS)
            address = prog.symbol(name).address
            found = Object(prog, "unsigned int", address=address)
            # Each time: the kernel may be alive.
            return found if found.value_() <= most else Object(prog, found.type_, most)
        except (LookupError, FaultError):
            return None  # The other finders say what is wrong.

    prog.register_object_finder(_FINDER, find, enable_index=0)
