# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that asks libvirt which domains run, again when that changes."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Protocol

from kmemdump.errors import KmemdumpError, UnsupportedError, UsageError
from kmemdump.targets.libvirt.connection import LibvirtConnection
from kmemdump.targets.libvirt.process import daemon_of, find_process, start_time

__all__ = ["TRYING_AGAIN", "Choice", "Domain", "Found", "find_domains"]

TRYING_AGAIN = "; trying again"
"""End of a message for a person whose watch goes on."""

_TIMEOUT = 10.0
"""Seconds that the daemon has for each answer."""
_RELIST = 10.0
"""Seconds between two lists, if no event comes."""
_RETRY = (0.5, 0.5, 1.0, 2.0)
"""Seconds between attempts to reach a daemon that has gone."""
_CHECK = 1.0
"""Seconds between two checks of whether the daemon and the parent are still there."""
_PROCESS_WAIT = 5.0
"""Seconds for which a domain is not found as long as its process is not known."""
_PROCESS_CHECK = 0.2
"""Seconds between two looks for such a process."""
_MAX_DOMAINS = 16384


@dataclass(frozen=True, slots=True)
class Domain:
    """A running domain."""

    name: str
    uuid: str
    life: str
    """Differs each time that its QEMU was started."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the process that asks libvirt reports."""

    domains: Sequence[Domain] | None = None
    """All that run; None if nothing new is known."""
    message: str = ""
    """For a person."""


class Choice(Protocol):
    """Chooses domains."""

    def accepts(self, name: str, describe: Callable[[], str]) -> bool:
        """Return whether a domain is chosen; *describe* returns its XML."""


def find_domains(reports: Connection, uri: str, choice: Choice) -> None:
    """
    Send a :class:`Found` whenever the running domains change, until the parent ends.

    :param uri: libvirt's; empty for its default.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # A terminal sends it to all.
    with suppress(BrokenPipeError, ConnectionResetError):
        _Finder(reports, uri, choice).run()


class _Finder:
    def __init__(self, reports: Connection, uri: str, choice: Choice) -> None:
        self._reports = reports
        self._uri = uri
        self._choice = choice
        self._parent = os.getppid()
        self._changed = threading.Event()
        self._known: Sequence[Domain] | None = None
        self._daemon = 0
        self._lives: dict[tuple[str, int], str] = {}
        """Of the domains that were listed last, by UUID and libvirt's number."""
        self._pending: dict[str, float] = {}
        """Since when domains without a known process are there, by UUID."""

    def run(self) -> None:
        attempt = 0
        reported = ""
        while self._has_parent():
            try:
                with LibvirtConnection(self._uri, _TIMEOUT) as connection:
                    if reported:
                        self._reports.send(Found(message="libvirt answers again"))
                    attempt, reported = 0, ""
                    self._follow(connection)
            except (UsageError, UnsupportedError) as error:
                self._reports.send(Found(message=str(error)))
                return
            except KmemdumpError as error:
                problem = str(error).splitlines()[0]
                if problem != reported:
                    reported = problem
                    self._reports.send(Found(message=f"{problem}{TRYING_AGAIN}"))
            delay = _RETRY[min(attempt, len(_RETRY) - 1)]
            self._changed.wait(delay)
            attempt += 1

    def _has_parent(self) -> bool:
        return os.getppid() == self._parent

    def _follow(self, connection: LibvirtConnection) -> None:
        """List domains at each change, until the connection ends."""
        self._daemon = daemon_of(self._uri)
        connection.call(lambda: self._register(connection), "events")
        next_list = 0.0
        while connection.alive and self._has_parent():
            if time.monotonic() >= next_list or self._changed.is_set():
                self._changed.clear()
                self._send(connection)
                next_list = time.monotonic() + (
                    _PROCESS_CHECK if self._pending else _RELIST
                )
            self._changed.wait(_PROCESS_CHECK if self._pending else _CHECK)

    def _register(self, connection: LibvirtConnection) -> None:
        lifecycle = connection.libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
        connection.raw.domainEventRegisterAny(
            None, lifecycle, lambda *_: self._changed.set(), None
        )

    def _send(self, connection: LibvirtConnection) -> None:
        domains = connection.call(lambda: self._list(connection), "its domains")
        if domains != self._known:
            self._known = domains
            self._reports.send(Found(domains))

    def _list(self, connection: LibvirtConnection) -> list[Domain]:
        libvirt, raw = connection.libvirt, connection.raw
        found = []
        lives: dict[tuple[str, int], str] = {}
        pending: dict[str, float] = {}
        active = raw.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        for domain in active[:_MAX_DOMAINS]:
            name, number, uuid = domain.name(), domain.ID(), domain.UUIDString()
            try:
                chosen = self._choice.accepts(name, partial(domain.XMLDesc, 0))
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                    raise  # Nothing is known of the domain: its daemon may have ended.
                continue  # It ended meanwhile.
            if number < 0 or not chosen:
                continue
            life = self._life(name, uuid, number)
            if life is None:
                pending[uuid] = self._pending.get(uuid, time.monotonic())
            elif life:
                found.append(Domain(name, uuid, life))
                lives[uuid, number] = life
        self._lives, self._pending = lives, pending
        return sorted(found, key=lambda item: (item.name, item.uuid))

    def _life(self, name: str, uuid: str, number: int) -> str | None:
        """Return a domain's life; empty if it ended, None if it is not known yet."""
        if pid := find_process(name, self._daemon):
            # A daemon that starts again may use the number of an ended domain.
            start = start_time(pid)
            return f"{number}-{pid}-{start}" if start else ""
        if life := self._lives.get((uuid, number)):
            return life  # A daemon that has ended hides its files.
        # libvirt names the process only a moment after it lists the domain.
        since = self._pending.get(uuid, time.monotonic())
        return f"{number}-0-0" if time.monotonic() - since >= _PROCESS_WAIT else None
