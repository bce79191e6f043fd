# SPDX-License-Identifier: GPL-2.0-or-later
"""What kinds of events a kernel logs when something is wrong."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["EventKind"]


class EventKind(StrEnum):
    """
    Kind of an event, as the field calls it.

    Finer than :class:`kmemdump.diagnosis.records.CauseKind`, which says how a kernel
    died; this says of what.
    """

    # Exceptions in kernel mode, called an oops.
    NULL = "null dereference"
    PAGE_FAULT = "page fault"
    PROTECTION = "general protection fault"
    STACK_SEGMENT = "stack segment fault"
    DIVIDE = "divide error"
    INVALID_OPCODE = "invalid opcode"
    INT3 = "int3"
    ALIGNMENT = "alignment fault"
    DOUBLE_FAULT = "double fault"
    STACK_OVERFLOW = "stack overflow"
    BTI = "bti"
    CFI = "cfi"
    OOPS = "oops"
    """Any other."""
    # What the kernel's own checks found.
    BUG = "bug"
    WARNING = "warning"
    RUST = "rust panic"
    REFCOUNT = "refcount"
    LIST = "list corruption"
    SLAB = "slab corruption"
    BAD_PAGE = "bad page state"
    USERCOPY = "usercopy"
    FORTIFY = "fortify"
    STACK_CORRUPTION = "stack corruption"
    OBJECT_DEBUG = "odebug"
    """debugobjects: a timer or work item freed while active."""
    KASAN = "kasan"
    KMSAN = "kmsan"
    KFENCE = "kfence"
    KCSAN = "kcsan"
    UBSAN = "ubsan"
    MEMORY_LEAK = "memory leak"
    DEADLOCK = "possible deadlock"
    LOCK_STATE = "inconsistent lock state"
    LOCK_USAGE = "lock usage"
    """A lock held, freed or released where it must not be."""
    RCU_USAGE = "suspicious rcu usage"
    SPINLOCK = "spinlock"
    ATOMIC_SLEEP = "sleep in atomic context"
    PREEMPTIBLE = "per-cpu access in preemptible code"
    # Something does not go on.
    SOFT_LOCKUP = "soft lockup"
    HARD_LOCKUP = "hard lockup"
    HUNG_TASK = "hung task"
    RCU_STALL = "rcu stall"
    WORKQUEUE_LOCKUP = "workqueue lockup"
    WATCHDOG = "watchdog"
    # Nothing to go on with.
    OOM = "out of memory"
    INIT_DEATH = "death of init"
    NO_ROOT = "no root file system"
    NO_INIT = "no init"
    FILE_SYSTEM = "file system error"
    # Hardware, firmware, hypervisor.
    MACHINE_CHECK = "machine check"
    FIRMWARE_ERROR = "firmware error"
    """An error of memory, PCIe or a processor that firmware reported (GHES)."""
    MEMORY_ERROR = "memory error"
    PCIE_ERROR = "pcie error"
    SERROR = "serror"
    EXTERNAL_ABORT = "external abort"
    NMI = "nmi"
    ENCLAVE = "sgx or tdx"
    HYPERVISOR = "hypervisor"
    # Asked for.
    SYSRQ = "sysrq"
    REBOOT = "reboot"
    PANIC = "panic"
    """Any other panic, such as a driver's."""
