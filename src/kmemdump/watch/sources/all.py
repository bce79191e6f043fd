# SPDX-License-Identifier: GPL-2.0-or-later
"""The sources that a person asks for, as one."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from fnmatch import fnmatchcase

from kmemdump.errors import UsageError
from kmemdump.targets.libvirt.target import split_spec
from kmemdump.watch.sources import Source, VmAddress
from kmemdump.watch.sources.daemons import DaemonSource, names_daemons
from kmemdump.watch.sources.libvirt import DomainFilter, LibvirtSource
from kmemdump.watch.sources.metadata import MetadataFilter
from kmemdump.watch.sources.names import Names, numbered
from kmemdump.watch.sources.processes import ProcessSource, is_process_spec
from kmemdump.watch.sources.sockets import SocketSource

__all__ = ["Sources", "describe_places", "find_sources"]

_LIBVIRT = "libvirt:"


class Sources:
    """
    Several sources as one.

    :param patterns: Patterns of names, of which a VM must match one; all VMs if there
        is none.
    """

    def __init__(self, sources: Sequence[Source], patterns: Sequence[str] = ()) -> None:
        self._sources = list(sources)
        self._patterns = tuple(patterns)
        self._names = Names()

    def vms(self) -> list[VmAddress]:
        return [
            self._renamed(number, vm)
            for number, source in enumerate(self._sources)
            for vm in source.vms()
            if self._accepts(vm.name)
        ]

    def _accepts(self, name: str) -> bool:
        patterns = self._patterns
        return not patterns or any(fnmatchcase(name, item) for item in patterns)

    def _renamed(self, number: int, vm: VmAddress) -> VmAddress:
        """Return a VM with a name that no VM of another source has."""
        name = self._names.name((number, vm.name), lambda: numbered(vm.name))
        return vm if name == vm.name else vm.with_name(name)

    @property
    def settled(self) -> bool:
        return all(source.settled for source in self._sources)

    def messages(self) -> list[str]:
        return [text for source in self._sources for text in source.messages()]

    def close(self) -> None:
        for source in self._sources:
            source.close()


def find_sources(
    specs: Sequence[str],
    libvirt: Sequence[str] = (),
    names: Sequence[str] = (),
    metadata: Sequence[str] = (),
) -> Sources:
    """
    Return what finds the VMs that a person asks for.

    :param specs: Sockets, folders of sockets and patterns, as
        :class:`~kmemdump.watch.sources.sockets.SocketSource` takes them;
        ``libvirt:[URI#]DOMAIN``; ``pid:PID``, ``ch:SOCKET`` and
        ``firecracker:SOCKET``.
    :param libvirt: URIs of libvirt, of which all running domains are meant; an empty
        one is libvirt's default, and one whose socket is a pattern is all daemons
        that it matches, those that start later too.
    :param names: Patterns; a VM's name must match one of them.
    :param metadata: ``KEY=VALUE``; a domain's metadata must match each of them.
    :raises UsageError: If that makes no sense, or asks for no VM.
    :raises UnsupportedError: If libvirt's Python module is missing.
    """
    filters = tuple(MetadataFilter.parse(text) for text in metadata)
    if filters and not libvirt:
        raise UsageError("--metadata is of libvirt's domains, expected --libvirt, too")
    if len(set(libvirt)) < len(libvirt):
        raise UsageError("--libvirt: a URI is named twice, expected each once")
    sources: list[Source] = []
    processes = [spec for spec in specs if is_process_spec(spec)]
    if processes:
        sources.append(ProcessSource(processes))
    sockets = [
        spec
        for spec in specs
        if not spec.startswith(_LIBVIRT) and spec not in processes
    ]
    if sockets:
        sources.append(SocketSource(sockets))
    for spec in specs:
        if spec.startswith(_LIBVIRT):
            uri, domain = split_spec(spec.removeprefix(_LIBVIRT))
            sources.append(LibvirtSource(uri, DomainFilter((glob.escape(domain),))))
    for uri in libvirt:
        kind = DaemonSource if names_daemons(uri) else LibvirtSource
        sources.append(kind(uri, DomainFilter(metadata=filters)))
    if not sources:
        raise UsageError(
            "no VM, expected a QMP socket, a folder or pattern of them, pid:PID, or "
            "--libvirt"
        )
    return Sources(sources, names)


def describe_places(specs: Sequence[str], libvirt: Sequence[str]) -> str:
    """Return where VMs are looked for, as a person typed it."""
    return ", ".join([*specs, *(f"--libvirt={uri}".rstrip("=") for uri in libvirt)])
