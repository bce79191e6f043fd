# SPDX-License-Identifier: GPL-2.0-or-later
"""All running domains of libvirt on a host, or those that filters choose."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from kmemdump.bounds.start import start_process
from kmemdump.targets.libvirt.connection import check_uri, load_libvirt
from kmemdump.targets.libvirt.target import open_libvirt
from kmemdump.targets.qmp import QmpTarget
from kmemdump.watch.sources.domains import Domain, Found, find_domains
from kmemdump.watch.sources.metadata import MetadataFilter
from kmemdump.watch.sources.names import Names, clean_name, numbered

__all__ = ["DomainFilter", "LibvirtSource", "LibvirtVm"]

_RESTART = 1.0
"""Seconds before a process that died is started again, at first."""
_MAX_RESTART = 60.0


@dataclass(frozen=True, slots=True)
class LibvirtVm:
    """A running domain, reached through libvirt."""

    name: str
    uri: str
    """Empty for libvirt's default."""
    domain: str
    uuid: str
    life: str

    @property
    def spec(self) -> str:
        uri = f"{self.uri}#" if self.uri else ""
        return f"libvirt:{uri}{self.domain}"

    def with_name(self, name: str) -> LibvirtVm:
        return replace(self, name=name)

    def obstacle(self) -> str | None:
        return None  # It was running when libvirt was asked last.

    def connect(self, timeout: float) -> QmpTarget:
        return open_libvirt(self.uri, self.domain, timeout, keep_dead=True)


@dataclass(frozen=True, slots=True)
class DomainFilter:
    """Which domains are watched."""

    names: tuple[str, ...] = ()
    """Patterns, of which one must match; all domains if there is none."""
    metadata: tuple[MetadataFilter, ...] = ()
    """All of them must match."""

    def accepts(self, name: str, describe: Callable[[], str]) -> bool:
        """
        Return whether a domain is chosen.

        :param describe: Returns its XML; called if it matters.
        """
        if self.names and not any(fnmatchcase(name, item) for item in self.names):
            return False
        if not self.metadata:
            return True
        xml = describe()
        return all(item.accepts(xml) for item in self.metadata)


class LibvirtSource:
    """
    Finds the running domains of a libvirt daemon.

    A process of its own asks the daemon, so that neither a daemon that does not answer
    nor libvirt's library harm the process that looks after all VMs.

    :param uri: libvirt's; empty for its default.
    :param chosen: Which domains.
    :raises UsageError: If VMs at *uri* cannot be watched from here.
    :raises UnsupportedError: If libvirt's Python module is missing.
    """

    def __init__(self, uri: str = "", chosen: DomainFilter | None = None) -> None:
        check_uri(uri)
        load_libvirt()  # Says now that it is missing.
        self._uri = uri
        self._chosen = chosen or DomainFilter()
        self._names = Names()
        self._domains: Sequence[Domain] = ()
        self._settled = False
        self._messages: list[str] = []
        self._context = multiprocessing.get_context("spawn")
        self._delay = _RESTART
        self._start_at = 0.0
        self._process: SpawnProcess | None = None
        self._reports: Connection | None = None

    def vms(self) -> list[LibvirtVm]:
        if self._process is None and time.monotonic() >= self._start_at:
            self._start()
        self._receive()
        # One that is defined anew, maybe with another UUID, is the same VM.
        self._names.forget_others(domain.uuid for domain in self._domains)
        return [self._address(domain) for domain in self._domains]

    def _address(self, domain: Domain) -> LibvirtVm:
        name = self._names.name(domain.uuid, lambda: numbered(clean_name(domain.name)))
        return LibvirtVm(name, self._uri, domain.name, domain.uuid, domain.life)

    def _start(self) -> None:
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=find_domains,
            args=(theirs, self._uri, self._chosen),
            name="kmemdump watch libvirt",
            daemon=True,
        )
        try:
            start_process(process)
        except OSError as error:  # The host is short of memory, or of processes.
            ours.close()
            self._messages.append(
                f"cannot start the process that asks libvirt: {error.strerror}"
            )
            self._wait_to_start()
            return
        finally:
            theirs.close()
        self._process, self._reports = process, ours

    def _receive(self) -> None:
        """Take what the process has found, without waiting."""
        reports = self._reports
        try:
            while reports is not None and reports.poll():
                found = reports.recv()
                assert isinstance(found, Found)
                if found.domains is not None:
                    self._domains = found.domains
                    self._settled = True
                    self._delay = _RESTART
                if found.message:
                    self._messages.append(found.message)
        except (EOFError, OSError):
            self._end()
            self._messages.append(
                "the process that asks libvirt died; starting it again, and the VMs "
                "known before are still watched"
            )
            self._wait_to_start()

    def _wait_to_start(self) -> None:
        self._start_at = time.monotonic() + self._delay
        self._delay = min(2 * self._delay, _MAX_RESTART)

    @property
    def settled(self) -> bool:
        return self._settled

    def messages(self) -> list[str]:
        messages, self._messages = self._messages, []
        return messages

    def close(self) -> None:
        self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        reports, self._reports = self._reports, None
        if reports is not None:
            reports.close()
        if process is not None:
            with suppress(OSError):
                process.kill()  # It holds nothing that could be lost.
            process.join()
            process.close()
