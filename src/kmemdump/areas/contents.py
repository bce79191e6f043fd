# SPDX-License-Identifier: GPL-2.0-or-later
"""
The kinds of data that areas hold, in words for people who answer for that data.

Areas know what they read; this table says what of it is data: chosen by people or
programs, and not by the kernel's authors.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["CONTENTS", "KINDS", "OTHER_TEXT", "kinds_of_areas", "text_of_area"]

OTHER_TEXT = "other-text"

KINDS: dict[str, str] = {
    "task-names": "names of programs and of their threads, at most 15 characters each",
    "kernel-thread-names": "names of the kernel's own threads, some with a device's "
    "name or a server's address",
    "host-names": "the machine's host name and NIS domain",
    "command-line": "the kernel's command line: disks' ids, addresses, options",
    "log-text": "the text of the kernel log: device and interface names, addresses, "
    "serial numbers, program names, whatever a driver or a program wrote there",
    "paths": "names of files, folders, disks and mounts that the first process and the "
    "mount table use",
    "network-addresses": "IP and hardware addresses of the machine's interfaces",
    "interface-names": "names of network interfaces",
    "device-names": "names of devices and of their interrupts and drivers",
    "module-names": "names of loaded modules and of their symbols",
    "user-ids": "numbers of users and groups",
    "stacks": "kernel stacks: addresses, and values that functions worked on",
    "registers": "the CPUs' registers when the memory was copied",
    "processor-state": "user programs' vector registers, keys of pointer "
    "authentication, stack canaries",
    "arguments": "programs' arguments and environment, in their memory",
    OTHER_TEXT: "text that no other kind covers",
    "other-data": "bytes in structures that may be names, keys or contents",
    "vm-names": "the VM's name, and what its watcher wrote about its death",
    "kernel-identity": "release, version and build of the kernel, and who built it",
    "numbers": "counters, times, sizes, process ids",
    "addresses": "kernel addresses, which show where the kernel was loaded",
    "slack": "memory beside what questions read: the rest of each block of 512 bytes, "
    "and of each page where area crash is kept",
}
"""Names of kinds, and what they are."""

# The first kind is that of the text in the answers of an area.
CONTENTS: dict[str, tuple[str, ...]] = {
    "coreinfo": ("host-names", "kernel-identity", "numbers", "addresses"),
    "kmsg": ("log-text", "numbers"),
    "panic": ("command-line", "numbers"),
    "kernel": (OTHER_TEXT,),
    "sched": ("task-names", "numbers", "addresses"),
    "stacks": ("task-names", "stacks", "registers", "addresses"),
    "tasks": ("paths", "task-names", "kernel-thread-names", "numbers", "addresses"),
    "new-tasks": ("task-names", "stacks", "other-data"),
    "irq": ("device-names", "numbers"),
    "modules": ("module-names", "addresses"),
    "timers": (OTHER_TEXT, "numbers", "addresses"),
    "memory": ("paths", "numbers"),
    "mounts": ("paths", "addresses"),
    "devices": ("device-names", "addresses"),
    "net": ("interface-names", "network-addresses", "addresses"),
    "ipc": (OTHER_TEXT, "user-ids", "numbers"),
    "symbols": ("kernel-identity",),
    "crash": (
        "paths",
        "task-names",
        "log-text",
        "module-names",
        "processor-state",
        "other-data",
        "stacks",
        "slack",
        "numbers",
        "addresses",
    ),
    "all-stacks": ("task-names", "stacks", "addresses"),
    "free-pages": (OTHER_TEXT, "arguments", "slack"),
}


def text_of_area(name: str) -> str:
    """Return the kind of the text in an area's answers."""
    return CONTENTS.get(name, (OTHER_TEXT,))[0]


def kinds_of_areas(names: Iterable[str]) -> list[tuple[str, list[str]]]:
    """
    Return the kinds of data in a core image, each with the areas that have it.

    :param names: Of the areas in it; those of users may hold anything.
    """
    areas = list(names)
    found: list[tuple[str, list[str]]] = []
    for kind in KINDS:
        having = [
            name
            for name in areas
            if kind in CONTENTS.get(name, (OTHER_TEXT, "arguments", "slack"))
        ]
        if having:
            found.append((kind, having))
    return found
