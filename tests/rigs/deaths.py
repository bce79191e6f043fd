# SPDX-License-Identifier: GPL-2.0-or-later
"""
How a VM's kernel dies, and what is no death, as tables.

For the tests of ``kmemdump watch`` and for longer campaigns: what causes each, what the
watch should call it, and what the report should begin with.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kmemdump.diagnosis.death_kind import DeathKind
from kmemdump.errors import UnsupportedError
from kmemdump.lab import AARCH64, X86_64, Architecture, KernelPackage, Machine
from kmemdump.lab.crashes import die_by_module
from kmemdump.lab.setup import DEFAULT_ACTION

__all__ = ["BY_NAME", "DEATHS", "NO_DEATHS", "Death", "NoDeath", "unpack_modules"]

PANIC_ON_OOPS = "echo 1 >/proc/sys/kernel/panic_on_oops"
_SYSRQ = "echo 1 >/proc/sys/kernel/sysrq"
REBOOTS = "panic=none,reboot=reset,shutdown=poweroff"
"""What QEMU does if it is not told to keep a dead VM."""
BOTH = (X86_64, AARCH64)
_WATCHDOG = "for m in watchdog softdog; do insmod /files/$m.ko 2>/dev/null; done; "
_FEEDER = "watchdog -T {} -t 1 -F /dev/watchdog"
"""By its own name, by which it is killed."""


@dataclass(frozen=True, slots=True)
class Death:
    """A way to die."""

    name: str
    kind: DeathKind
    """What the core image should call it."""
    line: str
    """Regular expression for the sentence with which the report begins."""
    start: Callable[[Machine], object]
    prepare: str = ""
    """Commands for the guest's shell, before."""
    architectures: tuple[Architecture, ...] = BOTH
    action: str = DEFAULT_ACTION
    """What QEMU does."""
    modules: tuple[str, ...] = ()
    """Of the kernel's package, to be found by the guest in /files."""
    devices: tuple[str, ...] = ()
    """Of QEMU."""
    whole: bool = True
    """Whether the VM's memory is still there."""
    patience: float = 60.0
    """Seconds until there is a core image, on a quiet host."""

    @property
    def complete(self) -> bool:
        """Whether the core image should answer everything: a reset loses registers."""
        return self.whole and self.action != REBOOTS

    @property
    def survived(self) -> bool:
        """Whether the kernel goes on."""
        return self.kind is DeathKind.OOPS

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class NoDeath:
    """An event that looks like a death, and is none; the kernel goes on."""

    name: str
    start: Callable[[Machine], object]
    seconds: float = 3.0
    """For how long to wait for a wrong alarm."""
    ends: str = ""
    """Regular expression for what the watch says if the kernel ends, orderly."""
    architectures: tuple[Architecture, ...] = BOTH

    def __str__(self) -> str:
        return self.name


def _shell(command: str) -> Callable[[Machine], None]:
    """Have the guest run something that does not come back."""
    return lambda machine: machine.send(command)


def _run(command: str) -> Callable[[Machine], str]:
    return lambda machine: machine.run(command)


def _module(word: str) -> Callable[[Machine], None]:
    return lambda machine: die_by_module(machine, word)


def _sysctl(**values: int) -> str:
    return "; ".join(
        f"echo {value} >/proc/sys/kernel/{name}" for name, value in values.items()
    )


def _kill(number: signal.Signals) -> Callable[[Machine], None]:
    return lambda machine: os.kill(machine.pid, number)


def _nmi(machine: Machine) -> None:
    machine.control.execute("inject-nmi")


def _reset(machine: Machine) -> None:
    machine.control.execute("system_reset")


def _truncate(machine: Machine) -> None:
    assert machine.ram is not None
    os.truncate(machine.ram, 0)


def _oops(word: str, line: str, **more: object) -> Death:
    """Return a death by an oops that is a panic."""
    fields = {"prepare": PANIC_ON_OOPS, **more}
    return Death(word, DeathKind.PANIC, line, _module(word), **fields)  # type: ignore


def _hang(word: str, line: str, **more: object) -> Death:
    return Death(word, DeathKind.HANG, line, _module(word), **more)  # type: ignore


def _i6300esb(action: str) -> Death:
    """Return a death that a watchdog device of the VM notices."""
    return Death(
        f"i6300esb-{action}",
        DeathKind.WATCHDOG,
        r"watchdog expired|hang",
        # Nobody feeds it any more.
        _shell("busybox killall -9 watchdog"),
        prepare="for m in watchdog i6300esb; do insmod /files/$m.ko; done; "
        f"({_FEEDER.format(4)} &)",
        architectures=(X86_64,),
        action=f"{DEFAULT_ACTION},watchdog={action}",
        modules=("watchdog", "i6300esb"),
        devices=("i6300esb",),
    )


_NULL = "dereferenced a NULL pointer"
_POINTER = "used a bad pointer"

DEATHS = (
    Death(
        "sysrq-c",
        DeathKind.PANIC,
        "on purpose, through sysrq",
        _shell("echo c >/proc/sysrq-trigger"),
    ),
    Death(
        "sysrq-c-then-reset",
        DeathKind.PANIC,
        "on purpose, through sysrq",
        _shell("echo c >/proc/sysrq-trigger"),
        prepare=_sysctl(panic=-1),
        # On aarch64, QEMU loads the image of -kernel anew at a reset: no panic is left.
        architectures=(X86_64,),
        action=REBOOTS,
    ),
    Death("panic", DeathKind.PANIC, "kmemdump_lab says so", _module("panic")),
    _oops("null", f"{_NULL} .*panic_on_oops"),
    Death("oops", DeathKind.OOPS, f"{_NULL} .*went on", _module("null")),
    _oops("badptr", _POINTER),
    _oops("poison", f"cannot exist|{_POINTER}"),
    _oops("execute", "called a NULL function pointer"),
    _oops("bug", r"gave up at a BUG"),
    _oops("stack", "stack overflowed", architectures=(X86_64,)),
    _oops("divide", "divided by zero", architectures=(X86_64,)),
    _oops("invalid", "executed an invalid instruction", architectures=(X86_64,)),
    _oops("double", "stack overflowed|double fault", architectures=(X86_64,)),
    _oops("timer", f"{_NULL} .*interrupt", prepare=""),
    _oops("work", f"{_NULL} .*kworker"),
    _oops("ipi", f"{_NULL} .*(interrupt|idle)", prepare=""),
    Death(
        "warn",
        DeathKind.PANIC,
        "The kernel warned",
        _module("warn"),
        prepare=_sysctl(panic_on_warn=1),
    ),
    Death(
        "oom",
        DeathKind.PANIC,
        "Memory ran out",
        _shell(
            "mkdir -p /t; mount -t tmpfs -o size=100% t /t; "
            "dd if=/dev/zero of=/t/x bs=1M"
        ),
        prepare="echo 2 >/proc/sys/vm/panic_on_oom",
        patience=120,
    ),
    Death("init-exits", DeathKind.PANIC, r"Process 1 \(init\)", _shell("exit 3")),
    Death(
        "nmi",
        DeathKind.PANIC,
        "non-maskable interrupt",
        _nmi,
        prepare=_sysctl(unknown_nmi_panic=1),
        architectures=(X86_64,),
    ),
    Death(
        "hung",
        DeathKind.PANIC,
        "lab_blocked.* was blocked",
        _module("hung"),
        prepare=_sysctl(hung_task_timeout_secs=5, hung_task_panic=1),
        patience=90,
    ),
    Death(
        "soft",
        DeathKind.PANIC,
        "was stuck",
        _module("soft"),
        prepare=_sysctl(watchdog_thresh=3, softlockup_panic=1),
        patience=90,
    ),
    Death(
        "rcu",
        DeathKind.PANIC,
        "held up RCU",
        _module("soft"),
        prepare=f"{_sysctl(softlockup_panic=0, panic_on_rcu_stall=1)}; "
        "echo 4 >/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout",
        patience=120,
    ),
    _hang("spin", r"CPU \d+ hangs in lab_spin"),
    _hang("spinall", r"hang"),
    _hang("deadlock", r"CPU \d+ hangs in"),
    _hang("jump", r"CPU \d+ hangs in lab_jump.*an interrupt of "),
    _hang("halt", r"CPU \d+ hangs in lab_halt"),
    _hang("haltidle", r"CPU \d+ hangs in lab_halt.*an interrupt of "),
    Death(
        "triple",
        DeathKind.TRIPLE_FAULT,
        r"triple fault reset the VM: CPU \d+ .*lab_triple_fault",
        _module("triple"),
        architectures=(X86_64,),
    ),
    Death(
        "cr3",
        DeathKind.TRIPLE_FAULT,
        r"triple fault",
        _module("cr3"),
        architectures=(X86_64,),
    ),
    Death(
        "triple-reset",
        DeathKind.TRIPLE_FAULT,
        r"as by a triple fault",
        _module("triple"),
        architectures=(X86_64,),
        action=REBOOTS,
    ),
    Death(
        "emergency",
        DeathKind.RESET,
        r"restarted the machine at once .* in lab_emergency",
        _module("emergency"),
    ),
    Death(
        "overheat",
        DeathKind.SHUTDOWN,
        r"to protect its hardware \(kmemdump_lab\)",
        _module("overheat"),
    ),
    Death(
        "emergency-reset",
        DeathKind.RESET,
        "The guest reset the VM, and its log does not say why",
        _module("emergency"),
        action=REBOOTS,
    ),
    Death(
        "sysrq-b",
        DeathKind.RESET,
        "immediate restart through sysrq",
        _shell("echo b >/proc/sysrq-trigger"),
        prepare=_SYSRQ,
    ),
    Death(
        "softdog",
        DeathKind.RESET,
        r"software watchdog \(softdog\) reset",
        _shell("busybox killall -9 watchdog"),
        prepare=f"{_WATCHDOG}({_FEEDER.format(3)} &)",
        modules=("watchdog", "softdog"),
    ),
    Death(
        "softdog-reset",
        DeathKind.RESET,
        r"software watchdog \(softdog\) reset",
        _shell("busybox killall -9 watchdog"),
        prepare=f"{_WATCHDOG}({_FEEDER.format(3)} &)",
        modules=("watchdog", "softdog"),
        architectures=(X86_64,),
        action=REBOOTS,
    ),
    *(_i6300esb(action) for action in ("pause", "reset", "none")),
    Death(
        "host-reset",
        DeathKind.HOST_RESET,
        "The host reset the VM",
        _reset,
        architectures=(X86_64,),
        action=REBOOTS,
    ),
    Death("host-reset-paused", DeathKind.HOST_RESET, "The host reset the VM", _reset),
    Death(
        "qemu-killed",
        DeathKind.QEMU_ENDED,
        "QEMU ended while the kernel ran",
        _kill(signal.SIGKILL),
        whole=False,
    ),
    Death(
        "ram-cut",
        DeathKind.QEMU_ENDED,  # It dies of that.
        "QEMU ended while the kernel ran",
        _truncate,
        whole=False,
    ),
)
"""The same in each kernel, unless its architecture cannot."""

BY_NAME = {death.name: death for death in DEATHS}


def _stop_and_go(machine: Machine) -> None:
    os.kill(machine.pid, signal.SIGSTOP)
    time.sleep(8)
    os.kill(machine.pid, signal.SIGCONT)


def _pause(machine: Machine) -> None:
    machine.pause()
    time.sleep(8)
    machine.resume()


def _offline_cpu(machine: Machine) -> None:
    machine.run("echo 0 >/sys/devices/system/cpu/cpu1/online")
    time.sleep(8)
    machine.run("echo 1 >/sys/devices/system/cpu/cpu1/online")


_LOOP = "sh -c 'while :; do :; done'"

NO_DEATHS = (
    NoDeath("idle", lambda _: None, 12),
    NoDeath("busy-user", _run(f"busybox timeout 12 {_LOOP} &"), 12),
    NoDeath(
        "busy-users",
        _run(f"for i in 1 2 3 4; do busybox timeout 12 {_LOOP} & done"),
        12,
    ),
    NoDeath(
        "busy-kernel",
        _run("busybox timeout 12 dd if=/dev/zero of=/dev/null bs=1G count=999999 &"),
        12,
    ),
    NoDeath("forks", _run("busybox timeout 8 sh -c 'while :; do /bin/ls; done' &"), 8),
    NoDeath(
        "log-flood",
        _run("busybox timeout 5 sh -c 'while :; do echo flood >/dev/kmsg; done' &"),
        6,
    ),
    NoDeath("says-panic", _run("echo 'Kernel panic - not syncing: x' >/dev/kmsg")),
    NoDeath("says-restart", _run("echo 'reboot: Restarting system' >/dev/kmsg")),
    NoDeath(
        "says-oops", _run("echo 'BUG: kernel NULL pointer dereference' >/dev/kmsg")
    ),
    NoDeath("warning", _module("warn")),
    NoDeath("sysrq-t", _run(f"{_SYSRQ}; echo t >/proc/sysrq-trigger"), 5),
    NoDeath("sysrq-w", _run(f"{_SYSRQ}; echo w >/proc/sysrq-trigger")),
    NoDeath("sysrq-l", _run(f"{_SYSRQ}; echo l >/proc/sysrq-trigger"), 5),
    NoDeath("oom-kill", _run("echo f >/proc/sysrq-trigger"), 4),
    NoDeath("segfault", _run("sh -c 'kill -SEGV $$' || true")),
    NoDeath("blocked-task", _module("hung"), 6),
    NoDeath("host-name", _run("echo other >/proc/sys/kernel/hostname")),
    NoDeath("clock-forward", _run("busybox date -s '2030-01-01 00:00:00'"), 6),
    NoDeath("clock-back", _run("busybox date -s '2001-01-01 00:00:00'"), 6),
    NoDeath("cpu-offline", _offline_cpu, 8),
    NoDeath("paused-by-host", _pause, 8),
    NoDeath("qemu-stopped", _stop_and_go, 8),
    NoDeath("power-button", lambda m: m.control.execute("system_powerdown"), 4),
    NoDeath("softdog-fed", _run(f"{_WATCHDOG}({_FEEDER.format(3)} &)"), 8),
    NoDeath(
        "softdog-closed",
        _run("busybox killall -TERM watchdog 2>/dev/null; true"),
        6,
    ),
    NoDeath(
        "nmi-ignored",
        lambda m: m.control.execute("inject-nmi"),
        6,
        architectures=(X86_64,),
    ),
    NoDeath("reboot", _shell("busybox reboot -f"), ends="rebooted in an orderly way"),
    NoDeath(
        "sysrq-o",
        _shell(f"{_SYSRQ}; echo o >/proc/sysrq-trigger"),
        ends="powered off in an orderly way",
    ),
    NoDeath(
        "poweroff", _shell("busybox poweroff -f"), ends="powered off in an orderly way"
    ),
    NoDeath("halt", _shell("busybox halt -f"), ends="halted in an orderly way"),
    NoDeath(
        "quit", lambda m: m.control.execute("quit"), ends="ended by its host|QEMU ended"
    ),
)
"""Those with *ends* end the kernel; the others may follow each other in one VM."""


def unpack_modules(
    kernel: KernelPackage, names: tuple[str, ...], folder: Path
) -> Iterator[Path]:
    """
    Unpack modules of a kernel's package for a guest.

    :raises UnsupportedError: If it has none of that name, not built in either.
    """
    for name in names:
        path = folder / f"{name}.ko"
        try:
            path.write_bytes(kernel.module(name))
        except UnsupportedError:
            if not kernel.has_builtin(name):
                raise
        else:
            yield path
