# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine of the lab is made of, and the QEMU command line for it."""

from dataclasses import dataclass
from pathlib import Path

from kmemdump.errors import UsageError
from kmemdump.lab.architectures import Architecture
from kmemdump.lab.kernel_package import KernelPackage
from kmemdump.lab.reserved import (
    add_reserved_memory,
    boot_smem,
    dump_device_tree,
    reserved_arguments,
    smem_range,
)

__all__ = ["DEFAULT_ACTION", "Setup", "prepare_firmware", "qemu_arguments"]

DEFAULT_ACTION = "panic=pause,reboot=shutdown,shutdown=pause"
"""Keep a dead machine and its memory."""

_SLOTS = 4
_DISK_MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "crc16",
    "crc32c_generic",
    "mbcache",
    "jbd2",
    "ext4",
)
"""Modules to read a disk, in the order to load them. Many are built in."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a machine is made of."""

    kernel: KernelPackage
    cpus: int = 2
    memory: int = 1024
    """MiB."""
    nodes: int = 1
    """Nodes of NUMA, which share CPUs and memory evenly."""
    more_memory: int = 0
    """MiB that can be added while it runs, in up to four devices."""
    share: bool = True
    """Whether guest RAM is a file that other processes can map."""
    vmcoreinfo: bool = True
    """Whether the guest leaves its VMCOREINFO with QEMU."""
    pvpanic: bool = False
    """Whether the guest reports a panic to QEMU."""
    cpu: str | None = None
    """
    QEMU's CPU model instead of the architecture's usual one; ``max`` has page tables
    of five levels.
    """
    accel: str = "tcg,thread=multi"
    action: str = DEFAULT_ACTION
    """What QEMU does when the guest panics, reboots or shuts down."""
    arguments: tuple[str, ...] = ()
    """Kernel command line; added to ``console=… panic=0``, which they override."""
    tasks: int = 200
    """Number of sleeping tasks."""
    random: int = 0
    """MiB of random data in the guest's memory, rounded up to a multiple of 16."""
    module: Path | None = None
    """A module of our own to load, see `build_module`."""
    more_modules: tuple[str, ...] = ()
    """Further modules of the kernel's package that the guest loads, in their order."""
    firmware: bool = False
    """
    Whether the machine has boot firmware that dumps regions (see
    :mod:`kmemdump.lab.firmware`): its SMEM is in reserved memory.
    """
    files: tuple[Path, ...] = ()
    """Files that the guest finds in ``/files``."""
    devices: tuple[str, ...] = ()
    """More devices, as QEMU's option ``-device`` takes them."""
    disk: int = 0
    """MiB of an empty disk, ``disk`` in the machine's folder; 0 for none."""
    disk_log: bool = False
    """Whether each write to it is logged, in ``disk-log`` in the machine's folder."""
    python: Path | None = None
    """An image with Python, see `python_image`: the guest then has ``kmemdump``."""

    def __post_init__(self) -> None:
        # Firmware knows only one range of RAM, with its own memory in it.
        least, most = (1024, 2048) if self.firmware else (256, 1 << 20)
        bounds = (
            ("cpus", self.cpus, 1, 255),
            ("memory", self.memory, least, most),
            ("nodes", self.nodes, 1, self.cpus),
            ("more_memory", self.more_memory, 0, 1 << 20),
            ("tasks", self.tasks, 0, 20_000),
            ("random", self.random, 0, self.memory // 2),
        )
        for name, value, low, high in bounds:
            if not low <= value <= high:
                raise UsageError(f"{name} is {value}, expected {low} to {high}")
        if self.firmware and not self.share:
            raise UsageError("firmware needs shared RAM: share must be true")

    @property
    def architecture(self) -> Architecture:
        """The kernel's."""
        return self.kernel.architecture

    @property
    def modules(self) -> tuple[str, ...]:
        """Modules of the kernel's package that the guest loads, in their order."""
        if not self.kernel.has_modules:
            return ()
        names = ["dummy"]
        if self.vmcoreinfo:
            names.append("qemu_fw_cfg")
        if self.pvpanic:
            names += self.architecture.pvpanic
        if self.python is not None or self.disk:
            names += self.disk_modules
        if self.kernel.image is not None:
            # A distribution may have built them in, or not at all.
            names = [name for name in names if self.kernel.has_module(name)]
        return (*names, *self.more_modules)

    @property
    def disk_modules(self) -> list[str]:
        """Modules of the kernel's package that read a disk, in the order to load."""
        return [name for name in _DISK_MODULES if self.kernel.has_module(name)]


def _disk(setup: Setup, place: str) -> str:
    if not setup.disk_log:
        return f"format=raw,file={place}/disk"
    # QEMU docs/system/qemu-block-drivers: the log is that of dm-log-writes.
    return (
        "driver=blklogwrites,file.driver=raw,file.file.driver=file,"
        f"file.file.filename={place}/disk,log.driver=raw,log.file.driver=file,"
        f"log.file.filename={place}/disk-log"
    )


def prepare_firmware(setup: Setup, folder: Path) -> None:
    """
    Do what boot firmware does before a kernel starts.

    :param folder: Gets ``ram``, with SMEM in it, and ``device-tree``.
    :raises UnsupportedError: If QEMU does not write the device tree.
    """
    arch = setup.architecture
    with open(folder / "ram", "wb") as ram:
        ram.truncate(setup.memory << 20)
        ram.seek(smem_range(arch).start - arch.ram)
        ram.write(boot_smem())
    if arch.device_tree:
        path = folder / "device-tree"
        dump_device_tree(arch.qemu, [arch.machine, *_board(setup)], path)
        add_reserved_memory(path, arch)


def _board(setup: Setup) -> list[str]:
    cpu = setup.cpu or setup.architecture.cpu
    memory = f"{setup.memory}M"
    if setup.more_memory:
        most = setup.memory + setup.more_memory
        memory += f",slots={_SLOTS},maxmem={most}M"
    return ["-cpu", cpu, "-smp", str(setup.cpus), "-m", memory]


def _memory(setup: Setup, place: str) -> list[str]:
    machine = setup.architecture.machine
    if setup.nodes > 1:
        arguments = ["-machine", machine]
        for node in range(setup.nodes):
            arguments += ["-object", _backend(setup, place, f"ram{node}")]
            arguments += ["-numa", f"node,nodeid={node},memdev=ram{node}"]
        return arguments
    if not setup.share:
        return ["-machine", machine]
    backend = _backend(setup, place, "ram")
    return ["-machine", f"{machine},memory-backend=ram", "-object", backend]


def _backend(setup: Setup, place: str, name: str) -> str:
    which = f"id={name},size={setup.memory // setup.nodes}M"
    if not setup.share:
        return f"memory-backend-ram,{which}"
    return f"memory-backend-file,{which},mem-path={place}/{name},share=on"


def qemu_arguments(
    setup: Setup, folder: Path, *, guest: int, control: int
) -> list[str]:
    """
    Return the arguments for QEMU, which listens only in *folder*.

    :param folder: Holds the initramfs; QEMU makes ``qmp``, ``console`` and ``ram`` (one
        for each node), and reuses those that exist.
    :param guest: File descriptor for the guest's second serial port.
    :param control: File descriptor for the lab's monitor.
    """
    # A comma ends a value; two stand for one.
    place = str(folder).replace(",", ",,")
    arch = setup.architecture
    reserved = reserved_arguments(arch) if setup.firmware else ()
    command_line = " ".join(
        (
            *(f"console={arch.console}", "panic=0", *arch.command_line),
            *reserved,
            *setup.arguments,
        )
    )
    arguments = ["-accel", setup.accel, *_board(setup)]
    arguments += _memory(setup, place)
    if setup.firmware and arch.device_tree:
        arguments += ["-dtb", str(folder / "device-tree")]
    arguments += ["-nodefaults", "-display", "none", "-action", setup.action]
    arguments += ["-chardev", f"file,id=console,append=on,path={place}/console"]
    arguments += ["-serial", "chardev:console"]
    arguments += ["-chardev", f"socket,id=guest,fd={guest}"]
    arguments += arch.port_device
    arguments += ["-chardev", f"socket,id=qmp,path={place}/qmp,server=on,wait=off"]
    arguments += ["-mon", "chardev=qmp,mode=control"]
    arguments += ["-chardev", f"socket,id=control,fd={control}"]
    arguments += ["-mon", "chardev=control,mode=control"]
    if setup.vmcoreinfo:
        arguments += ["-device", "vmcoreinfo"]
    if setup.pvpanic:
        arguments += ["-device", "pvpanic-pci"]
    for device in setup.devices:
        arguments += ["-device", device]
    if setup.python is not None:
        image = str(setup.python).replace(",", ",,")
        for disk in (f"{image},readonly=on", f"{place}/outbox"):
            arguments += ["-drive", f"if=virtio,format=raw,file={disk}"]
    if setup.disk:
        arguments += ["-drive", f"if=virtio,{_disk(setup, place)}"]
    arguments += ["-kernel", str(setup.kernel.vmlinuz)]
    arguments += ["-initrd", str(folder / "initramfs"), "-append", command_line]
    return arguments
