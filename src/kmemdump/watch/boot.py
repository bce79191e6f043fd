# SPDX-License-Identifier: GPL-2.0-or-later
"""One boot of a kernel: what tells it from others, and whether a CPU runs it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial

from drgn import Program
from drgn.helpers.linux.pid import find_task

from kmemdump.arch.architecture import arch_from_info
from kmemdump.errors import FormatError, NotCapturedError, TargetError
from kmemdump.kernel.attach import Kernel
from kmemdump.kernel.optional import optional
from kmemdump.targets.qmp_channel import QmpChannel
from kmemdump.vmcoreinfo import VmcoreInfo
from kmemdump.watch.vcpus import VcpuThreads

__all__ = ["Boot", "find_boot", "is_run"]

_MAX_CPUS = 16
"""Most CPUs that are asked for; any of them tells."""
_ADDRESS = re.compile(r"^gpa: (0x[0-9a-f]{1,16})\s*$", re.M)
_START_TIMES = ("start_boottime", "real_start_time", "start_time")
"""Members of struct task_struct; the first since v5.5."""


@dataclass(frozen=True, slots=True)
class Boot:
    """
    One boot of a kernel.

    With KASLR, another boot is at other addresses. Without it, the time at which
    process 1 started differs, by chance, in nanoseconds.
    """

    vmcoreinfo: bytes
    started: int | None
    """Nanoseconds from the boot to the start of process 1, if there is one."""


def find_boot(kernel: Kernel) -> Boot:
    """Return which boot of a kernel is in memory."""
    started = optional(partial(_start_of_init, kernel.prog))
    return Boot(kernel.vmcoreinfo.raw, started)


def _start_of_init(prog: Program) -> int:
    task = find_task(prog, 1)
    found = (optional(partial(task.member_, name)) for name in _START_TIMES)
    time: int = next(item for item in found if item is not None).value_()
    return time


def is_run(client: QmpChannel, info: VmcoreInfo, threads: VcpuThreads) -> bool | None:
    """
    Return whether a CPU of the VM runs the kernel that is in memory.

    RAM may hold a kernel of an earlier boot, while firmware, a boot loader or the next
    kernel runs. The page tables of the CPUs tell: only those of the kernel itself map
    it to where it is.

    :return: None if it is not known: in user space, a CPU may have page tables without
        the kernel.
    """
    try:
        arch = arch_from_info(info)
        virtual = info.symbol("init_uts_ns")
        physical = arch.image_address(info, virtual)
        vcpus = threads.read()
        for number in range(min(len(vcpus), _MAX_CPUS)):
            arguments = {"command-line": f"gva2gpa {virtual:#x}", "cpu-index": number}
            answer = client.execute("human-monitor-command", arguments)
            found = _ADDRESS.search(str(answer).replace("\r", ""))
            if found is None and "Unmapped" not in str(answer):
                return None  # An old QEMU lacks the command.
            if found is not None and int(found[1], 16) == physical:
                return True
    except (FormatError, NotCapturedError, TargetError):
        return None
    known = len(vcpus) <= _MAX_CPUS and all(
        vcpu is not None and not vcpu.user for vcpu in vcpus
    )
    return False if vcpus and known else None
