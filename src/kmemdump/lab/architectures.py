# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's virtual machine for each architecture."""

from __future__ import annotations

from dataclasses import dataclass

from kmemdump.errors import UnsupportedError

__all__ = ["AARCH64", "ARCHITECTURES", "X86_64", "Architecture", "get_architecture"]


@dataclass(frozen=True, slots=True)
class Architecture:
    """An architecture that Debian has cloud kernels for, and QEMU a machine."""

    name: str
    """As ``uname -m`` prints it."""
    debian: str
    """Debian's name of it."""
    compiler: str
    """Prefix of the names of the compilers for it."""
    compiler_package: str
    """Debian's package of the compiler for it on another architecture."""
    qemu: str
    """Program that emulates it."""
    qemu_package: str
    """Debian's package of that program."""
    machine: str
    """QEMU's machine, with its options."""
    cpu: str
    """QEMU's CPU model, unless another one is asked for."""
    ram: int
    """Physical address where RAM starts."""
    device_tree: bool
    """Whether the kernel reads from one which hardware the machine has."""
    command_line: tuple[str, ...]
    """What a kernel must be told to boot on a busy host."""
    console: str
    """The guest's name for the first serial port."""
    port: str
    """The guest's name for the second one."""
    port_device: tuple[str, ...]
    """QEMU's arguments that make the character device ``guest`` the second one."""
    pvpanic: tuple[str, ...]
    """Modules by which a guest reports its panic to QEMU, if its kernel has them."""
    nmi: bool
    """Whether the host can inject an NMI."""
    state: str
    """
    Regular expression for a CPU in ``info registers -a``: the groups ``pc`` and
    ``flags`` are the program counter and the register with the interrupt flag.
    """
    masked: tuple[int, int]
    """Mask of that flag, and its value where interrupts are off."""
    spin: bytes
    """Instructions that switch interrupts off and loop."""


X86_64 = Architecture(
    name="x86_64",
    debian="amd64",
    compiler="x86_64-linux-gnu-",
    compiler_package="gcc-x86-64-linux-gnu",
    qemu="qemu-system-x86_64",
    qemu_package="qemu-system-x86",
    machine="q35",
    cpu="qemu64",
    ram=0,
    device_tree=False,
    # With CPUs that stand still for a while, "IO-APIC + timer doesn't work".
    command_line=("no_timer_check",),
    console="ttyS0",
    port="ttyS1",
    port_device=("-serial", "chardev:guest"),
    pvpanic=("pvpanic", "pvpanic-pci"),
    nmi=True,
    state=r"RIP=(?P<pc>[0-9a-f]{16}) RFL=(?P<flags>[0-9a-f]{8})",
    masked=(0x200, 0),  # X86_EFLAGS_IF
    spin=bytes.fromhex("fa f390 ebfc"),  # cli; 1: pause; jmp 1b
)

AARCH64 = Architecture(
    name="aarch64",
    debian="arm64",
    compiler="aarch64-linux-gnu-",
    compiler_package="gcc-aarch64-linux-gnu",
    qemu="qemu-system-aarch64",
    qemu_package="qemu-system-arm",
    machine="virt,gic-version=3",
    cpu="cortex-a72",
    ram=1 << 30,
    device_tree=True,
    command_line=(),
    console="ttyAMA0",
    # The machine has only one PL011 outside the secure world.
    port="ttyS0",
    port_device=("-device", "pci-serial,chardev=guest"),
    pvpanic=(),  # Debian does not build it.
    nmi=False,
    state=r"PC=(?P<pc>[0-9a-f]{16})(?s:.*?)PSTATE=(?P<flags>[0-9a-f]{8})",
    masked=(0x80, 0x80),  # PSR_I_BIT
    # msr daifset, #2; 1: yield; b 1b
    spin=bytes.fromhex("df4203d5 3f2003d5 ffffff17"),
)

ARCHITECTURES = (X86_64, AARCH64)


def get_architecture(name: str) -> Architecture:
    """
    Return an architecture.

    :param name: As ``uname -m`` prints it.
    :raises UnsupportedError: If the lab does not know it.
    """
    for architecture in ARCHITECTURES:
        if architecture.name == name:
            return architecture
    known = ", ".join(architecture.name for architecture in ARCHITECTURES)
    raise UnsupportedError(f"architecture {name} is not one of {known}")
