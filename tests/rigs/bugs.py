# SPDX-License-Identifier: GPL-2.0-or-later
"""
The bugs of the driver in ``tests/buggy``, and others without it, as a table.

Each is one cause of death, whatever machine, CPU and task meets it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kmemdump.lab import (
    AARCH64,
    X86_64,
    Architecture,
    KernelPackage,
    Machine,
    PackageCache,
)
from kmemdump.lab.module import build_modules

__all__ = ["ARGUMENTS", "BUGS", "Bug", "build_buggy"]

ARGUMENTS = ("panic_on_taint=0x20",)
"""
For the kernel's command line: a panic for TAINT_BAD_PAGE, which corrupt slabs set.
Nothing else makes the kernel die of one.
"""
_SOURCES = Path(__file__).parents[1] / "buggy"


@dataclass(frozen=True, slots=True)
class Bug:
    """A cause of death."""

    name: str
    """The word that leads there in the driver, if *start* is not given."""
    prepare: str = "panic_on_oops=1"
    """Files and what is written into them; a mere name is below /proc/sys/kernel."""
    function: str | None = None
    """The function that a signature should name; None for none."""
    architectures: tuple[Architecture, ...] = (X86_64, AARCH64)
    start: Callable[[Machine], object] | None = None
    patience: float = 60.0
    """Seconds until there is a core image, on a quiet host."""

    @property
    def commands(self) -> str:
        """What the guest's shell does before."""
        return "; ".join(
            f"echo {value} >{name if '/' in name else f'/proc/sys/kernel/{name}'}"
            for name, _, value in (item.partition("=") for item in self.prepare.split())
        )


def build_buggy(packages: PackageCache, kernel: KernelPackage) -> Path:
    """
    Return the driver, built for a kernel.

    :raises UnsupportedError: If the compiler or the headers are missing.
    """
    sources = [_SOURCES / name for name in ("Kbuild", "buggy.c")]
    return build_modules(packages, kernel, "buggy", sources) / "buggy.ko"


def _shell(command: str) -> Callable[[Machine], None]:
    return lambda machine: machine.send(command)


_WARN = "panic_on_warn=1"
BUGS = (
    Bug("null-task", function="buggy_store_null"),
    Bug("null-timer", function="buggy_timer_expired"),
    Bug("null-work", function="buggy_do_work"),
    Bug("null-ipi", function="buggy_handle_ipi"),
    Bug("null-call", function="buggy_call_hook"),
    Bug("pointer", function="buggy_follow_pointer"),
    Bug("vmalloc", function="buggy_fill_table"),
    Bug("use-after-free", function="buggy_read_freed"),
    Bug("double-free", function="buggy_free_twice"),
    Bug("bug", function="buggy_check_state"),
    Bug("warn", _WARN, "buggy_warn_state"),
    Bug("panic", function="buggy_give_up"),
    Bug("list", function="buggy_unlink_twice"),
    Bug("refcount", _WARN, "buggy_take_reference"),
    Bug("usercopy", function="buggy_copy_out"),
    Bug("fortify", function="buggy_store_name"),
    Bug("stack-overflow", function="buggy_descend"),
    Bug("stack-smash", function="buggy_smash_frame"),
    Bug("atomic", _WARN, "buggy_sleep_in_bh"),
    Bug(
        "hung",
        "hung_task_timeout_secs=5 hung_task_panic=1",
        "buggy_wait_for_mutex",
        patience=90,
    ),
    Bug("soft", "watchdog_thresh=3 softlockup_panic=1", "buggy_thread"),
    Bug(
        "rcu",
        "softlockup_panic=0 panic_on_rcu_stall=1 "
        "/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout=4",
        "buggy_hold_rcu",
        patience=120,
    ),
    Bug("spin", function="buggy_poll_device"),
    Bug("spin-ipi", function="buggy_spin_in_ipi"),
    Bug("deadlock", function="buggy_lock_twice"),
    Bug("divide", function="buggy_divide", architectures=(X86_64,)),
    Bug("init-exits", start=_shell("exit 3")),
    Bug("sysrq", start=_shell("echo c >/proc/sysrq-trigger")),
    Bug(
        "nmi",
        "unknown_nmi_panic=1",
        architectures=(X86_64,),
        start=lambda machine: machine.control.execute("inject-nmi"),
    ),
)
