# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU does by itself when a guest dies, and which devices help."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kmemdump.checks.point import Point, missing, ok, warning
from kmemdump.errors import TargetError
from kmemdump.targets.libvirt.channel import LibvirtChannel
from kmemdump.targets.qmp_channel import QmpChannel
from kmemdump.targets.qmp_ram import find_processes
from kmemdump.text import printable

__all__ = ["Actions", "advise", "check_actions", "check_devices", "parse_actions"]

_QEMU = {
    "actions": "start QEMU with -action panic=pause,reboot=shutdown,shutdown=pause",
    "memory": "start QEMU with -object memory-backend-file,share=on,mem-path=FILE,…",
    "pvpanic": "add -device pvpanic-pci, if the guest's kernel has a driver for it",
    "vmcoreinfo": "add -device vmcoreinfo",
}
_LIBVIRT = {
    "actions": "let the guest wait before it reboots: sysctl kernel.panic=10",
    "memory": "add <memoryBacking> with <source type='file'/>, <access mode='shared'/>",
    "pvpanic": "add <panic model='isa'/>, if the guest's kernel has a driver for it",
    "vmcoreinfo": "add <vmcoreinfo state='on'/> to <features>",
}
_MAX_ARGUMENTS = 1 << 20
_MAX_DEVICES = 4096
_PLACES = ("/machine/peripheral", "/machine/peripheral-anon", "/machine/unattached")
"""Where QEMU keeps devices: with an id, without one, and those of the machine."""
_PANIC = re.compile(r"child<pvpanic(?:-pci|-mmio)?>")


@dataclass(frozen=True, slots=True)
class Actions:
    """QEMU's ``-action``, with the defaults of QEMU 6.0 and later."""

    panic: str = "shutdown"
    reboot: str = "reset"
    shutdown: str = "poweroff"

    @property
    def keeps_panicked(self) -> bool:
        """Whether QEMU leaves a VM that reports a panic in memory."""
        # qemu_system_guest_panicked(), QEMU system/runstate.c.
        return self.panic in ("none", "pause") or (
            self.panic == "shutdown" and self.shutdown == "pause"
        )

    def __str__(self) -> str:
        return f"panic={self.panic},reboot={self.reboot},shutdown={self.shutdown}"


def parse_actions(arguments: Sequence[str]) -> Actions:
    """Return the actions that a QEMU with this command line starts with."""
    found: dict[str, str] = {}
    for i, argument in enumerate(arguments):
        # One dash or two.
        match argument.removeprefix("-").removeprefix("-"):
            case "no-reboot":
                found["reboot"] = "shutdown"
            case "no-shutdown":
                found["shutdown"] = "pause"
            case "action" if argument.startswith("-"):
                found |= dict(_values("".join(arguments[i + 1 : i + 2])))
    return Actions(**found)


def _values(text: str) -> Iterator[tuple[str, str]]:
    for item in text.split(","):
        key, _, value = item.partition("=")
        if key in ("panic", "reboot", "shutdown"):
            yield key, value


def advise(client: QmpChannel, name: str) -> str:
    """Return what to do about a point of a VM: with QEMU's options, or libvirt's."""
    return (_LIBVIRT if isinstance(client, LibvirtChannel) else _QEMU)[name]


def check_actions(client: QmpChannel, panic_device: bool) -> Point:
    """
    Check what QEMU does with a VM that panics, reboots or shuts down.

    :param panic_device: Whether the VM has a device by which it reports a panic.
    """
    name = "actions"
    advice = advise(client, name)
    arguments = _command_line(client)
    if arguments is None:
        return warning(
            name,
            "QEMU's command line cannot be read: what it does at a death is unknown",
            advice,
        )
    found = parse_actions(arguments)
    text = printable(str(found))
    # A watch has libvirt keep a domain that panics, as long as it is watched.
    kept = found.keeps_panicked or isinstance(client, LibvirtChannel)
    if panic_device and not kept:
        return missing(
            name, f"{text}: QEMU ends when the guest panics, with its registers", advice
        )
    if found.reboot == "reset":
        return warning(
            name,
            f"{text}: a kernel that resets the VM loses its registers and part of its "
            "memory",
            advice,
        )
    if found.shutdown != "pause":
        return warning(name, f"{text}: QEMU ends with a VM that shuts down", advice)
    return ok(name, text)


def _command_line(client: QmpChannel) -> list[str] | None:
    """Return QEMU's arguments; ``None`` if its process is not known here."""
    for process in find_processes(client):
        try:
            with Path(f"/proc/{process}/cmdline").open("rb") as file:
                data = file.read(_MAX_ARGUMENTS)
        except OSError:
            continue
        arguments = os.fsdecode(data).split("\0")
        if re.search(r"qemu|kvm", arguments[0].rpartition("/")[2]):
            return arguments[1:]
    return None


def check_devices(client: QmpChannel) -> tuple[Point, Point]:
    """Check the devices by which a guest reports a panic, and where its kernel is."""
    try:
        kinds = set(_kinds(client))
    except TargetError as error:
        unknown = f"QEMU does not list its devices: {error}"
        return warning("pvpanic", unknown), warning("vmcoreinfo", unknown)
    found = sorted(kind[6:-1] for kind in kinds if _PANIC.fullmatch(kind))
    panic = (
        ok("pvpanic", f"{', '.join(found)}: QEMU learns of a panic at once")
        if found
        else warning(
            "pvpanic",
            "no such device: a panic is found in memory, up to 0.25 s later, and only "
            "once the kernel is marked",
            advise(client, "pvpanic"),
        )
    )
    note = (
        ok("vmcoreinfo", "the guest can tell QEMU where its kernel is")
        if "child<vmcoreinfo>" in kinds
        else warning(
            "vmcoreinfo",
            "no such device: the kernel is searched for in memory, up to a second for "
            "each GiB",
            advise(client, "vmcoreinfo"),
        )
    )
    return panic, note


def _kinds(client: QmpChannel) -> Iterable[str]:
    for place in _PLACES:
        answer = client.execute("qom-list", {"path": place})
        for item in (answer if isinstance(answer, list) else [])[:_MAX_DEVICES]:
            if isinstance(item, Mapping):
                yield str(item.get("type"))
