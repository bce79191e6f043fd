# SPDX-License-Identifier: GPL-2.0-or-later
"""Crash a guest's kernel, and detect its death."""

import re
import time
from enum import StrEnum

from kmemdump.errors import TargetError, UnsupportedError
from kmemdump.lab.machine import PANIC_ENDS, Machine
from kmemdump.lab.module import MODULE_NAME

__all__ = [
    "SPINNING",
    "CrashType",
    "crash_guest",
    "die_by_module",
    "trigger_crash",
]


class CrashType(StrEnum):
    """A crash that the lab can cause."""

    PANIC = "panic"
    """A panic by sysrq."""
    NULL = "null"
    """A NULL dereference in a module, which becomes a panic."""
    SPIN = "spin"
    """
    One CPU spins with interrupts off: in the lab's module or, on a machine without it,
    in `SPINNING`, which the lab overwrites.
    """
    SPIN_ALL = "spinall"
    """All CPUs do."""
    NMI = "nmi"
    """A panic by an NMI that the host injects, as into a guest that hangs."""


SPINNING = "sysrq_handle_show_timers"
"""
A function of every kernel that runs only if somebody asks for it (sysrq q): what runs
already, QEMU has translated.
"""
_SYSRQ = "q"
_FUNCTION_SIZE = 64
_ATTEMPTS = 50
_MODULE_SIZE = 1 << 16
"""Bytes; the code of the module is smaller."""


def crash_guest(machine: Machine, crash: CrashType, *, timeout: float = 60) -> None:
    """
    Crash a guest, and wait until it is dead.

    The machine is not paused, unless its own setup does that.

    :param timeout: Seconds that the crash may take.
    :raises UnsupportedError: If a machine of its architecture cannot crash that way.
    :raises TargetError: If it survives.
    """
    spinning = crash in (CrashType.SPIN, CrashType.SPIN_ALL)
    code = _spinning_code(machine) if spinning else range(0)
    trigger_crash(machine, crash)
    deadline = time.monotonic() + timeout
    while not _is_dead(machine, crash, code):
        if time.monotonic() > deadline:
            raise TargetError(f"the guest did not die of {crash} in {timeout:.0f} s")
        time.sleep(0.1)


def _spinning_code(machine: Machine) -> range:
    if machine.setup.module is None:
        start = _address(machine, SPINNING)
        return range(start, start + _FUNCTION_SIZE)
    # By its symbols: clang's LTO puts functions into sections of other names.
    said = machine.run(f"busybox grep -i ' t .*{MODULE_NAME}.$' /proc/kallsyms")
    start = min(int(line.split()[0], 16) for line in said.splitlines())
    return range(start, start + _MODULE_SIZE)


def _address(machine: Machine, name: str) -> int:
    """Return the address of a guest's symbol, as the guest says."""
    said = machine.run(f"busybox grep ' {name}$' /proc/kallsyms").split()
    if not said:
        raise UnsupportedError(f"the guest has no {name}")
    return int(said[0], 16)


def _overwrite(machine: Machine) -> None:
    """Make a function of the kernel spin; nothing has run it yet."""
    if machine.ram is None:
        raise UnsupportedError("a machine whose RAM is not shared needs the module")
    command = f"gva2gpa {_address(machine, SPINNING):#x}"
    for _ in range(_ATTEMPTS):
        # Of the page table that CPU 0 uses just then: perhaps a program's.
        answer = machine.control.command_line(command)
        if found := re.search("gpa: (0x[0-9a-f]+)", answer):
            break
        time.sleep(0.1)
    else:
        raise TargetError(f"QEMU does not find {SPINNING}: {answer.strip()}")
    arch = machine.setup.architecture
    with machine.ram.open("r+b") as ram:
        ram.seek(int(found[1], 16) - arch.ram)
        ram.write(arch.spin)


def trigger_crash(machine: Machine, crash: CrashType) -> None:
    """Start a crash, without waiting for it."""
    if crash is CrashType.NMI:
        architecture = machine.setup.architecture
        if not architecture.nmi:
            raise UnsupportedError(f"{architecture.name}: QEMU has no NMI to inject")
        machine.run("echo 1 >/proc/sys/kernel/unknown_nmi_panic")
        machine.control.execute("inject-nmi")
    elif crash is CrashType.PANIC:
        machine.send("echo c >/proc/sysrq-trigger")
    elif machine.setup.module is None:
        if crash is not CrashType.SPIN:
            raise UnsupportedError(f"a death by {crash} needs the lab's module")
        _overwrite(machine)
        machine.send(f"sh -c 'echo {_SYSRQ} >/proc/sysrq-trigger' &")
    else:
        if crash is CrashType.NULL:
            machine.run("echo 1 >/proc/sys/kernel/panic_on_oops")
        die_by_module(machine, crash)


def die_by_module(machine: Machine, word: str) -> None:
    """
    Have the lab's module kill its kernel, without waiting for it.

    :param word: From the table in ``guest/kmemdump_lab.c``.
    """
    # In a process of its own: the death of process 1 is another crash.
    parameter = f"/sys/module/{MODULE_NAME}/parameters/die"
    machine.send(f"sh -c 'echo {word} >{parameter}' &")


def _is_dead(machine: Machine, crash: CrashType, code: range) -> bool:
    if machine.control.status() != "running":
        return True  # By pvpanic, or paused at its reboot.
    if code:
        spinning = _spinning_cpus(machine, code)
        return spinning >= (machine.setup.cpus if crash is CrashType.SPIN_ALL else 1)
    return PANIC_ENDS.search(machine.console) is not None


def _spinning_cpus(machine: Machine, code: range) -> int:
    mask, masked = machine.setup.architecture.masked
    printed = machine.control.command_line("info registers -a")
    states = re.finditer(machine.setup.architecture.state, printed)
    return sum(
        int(state["pc"], 16) in code and int(state["flags"], 16) & mask == masked
        for state in states
    )
