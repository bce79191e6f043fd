# SPDX-License-Identifier: GPL-2.0-or-later
"""
The domains of many libvirt daemons on a host, which come and go: those of pods.

Each pod of KubeVirt has a daemon of its own, whose socket is in the pod's mount
namespace; ``/proc/PID/root`` of each of its processes leads to it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from glob import iglob
from itertools import islice

from kmemdump.errors import UsageError
from kmemdump.targets.libvirt.connection import check_uri, load_libvirt
from kmemdump.watch.sources.libvirt import DomainFilter, LibvirtSource, LibvirtVm
from kmemdump.watch.sources.names import Names, is_pattern, numbered
from kmemdump.watch.sources.sockets import life_of_socket

__all__ = ["DaemonSource", "names_daemons"]

_SOCKET = re.compile(r"(?<=[?&]socket=)[^&#]*")
_PAUSE = 0.5
"""Least seconds between two looks for sockets."""
_REST = 50.0
"""The same in units of the time that the last look took; /proc may have thousands."""
_MAX_DAEMONS = 1024


@dataclass(slots=True)
class _Daemon:
    source: LibvirtSource
    life: str
    """Of its socket."""


class DaemonSource:
    """
    Finds libvirt daemons by a pattern of their sockets, and all domains of each.

    A socket that several paths lead to is one daemon, and is reached by the path with
    the smallest numbers as long as that lasts: of a pod, its first process, which
    outlives the daemon.

    :param uri: libvirt's, with a pattern for the path of the socket.
    :param chosen: Which domains.
    :param open_source: Opens what asks one daemon.
    :raises UsageError: If VMs at *uri* cannot be watched from here.
    :raises UnsupportedError: If libvirt's Python module is missing.
    """

    def __init__(
        self,
        uri: str,
        chosen: DomainFilter | None = None,
        open_source: Callable[[str, DomainFilter | None], LibvirtSource] = (
            LibvirtSource
        ),
    ) -> None:
        check_uri(uri)
        load_libvirt()  # Says now that it is missing.
        found = _SOCKET.search(uri)
        if found is None or not found[0].startswith("/"):
            raise UsageError(
                f"{uri}: names no absolute path of a socket, expected …?socket=/PATH"
            )
        self._pattern = found[0]
        self._before, self._after = uri[: found.start()], uri[found.end() :]
        self._chosen = chosen
        self._open = open_source
        self._daemons: dict[str, _Daemon] = {}
        """By the path of the socket."""
        self._names = Names()
        self._messages: list[str] = []
        self._overflowing = False
        self._next_look = 0.0

    def vms(self) -> list[LibvirtVm]:
        now = time.monotonic()
        if now >= self._next_look:
            self._look()
            took = time.monotonic() - now
            self._next_look = now + took + max(_PAUSE, _REST * took)
        vms: list[LibvirtVm] = []
        taken: set[str] = set()
        for daemon in self._daemons.values():
            for vm in daemon.source.vms():
                # The pod that takes a VM's place has its UUID, too.
                name = self._name(vm.uuid, vm)
                if name in taken:
                    name = self._name((vm.uuid, vm.uri), vm)
                taken.add(name)
                vms.append(vm.with_name(name))
        return vms

    def _name(self, key: object, vm: LibvirtVm) -> str:
        return self._names.name(key, lambda: numbered(vm.name))

    def _look(self) -> None:
        """Find daemons that came, and forget those that have gone."""
        lives = {path: life_of_socket(path) for path in self._daemons}
        for path, life in lives.items():
            if life is None:
                self._messages += self._daemons[path].source.messages()
                self._daemons.pop(path).source.close()
            else:
                # One that is started again binds its socket anew.
                self._daemons[path].life = life
        known = {daemon.life for daemon in self._daemons.values()}
        for path in self._paths():
            found = None if path in self._daemons else life_of_socket(path)
            if found is None or found in known:
                continue
            if len(self._daemons) == _MAX_DAEMONS:
                self._say_overflow()
                break
            known.add(found)
            source = self._open(f"{self._before}{path}{self._after}", self._chosen)
            self._daemons[path] = _Daemon(source, found)

    def _say_overflow(self) -> None:
        if not self._overflowing:
            self._overflowing = True
            self._messages.append(
                f"{self._pattern}: more than {_MAX_DAEMONS} daemons of libvirt, the "
                "others' VMs are not watched"
            )

    def _paths(self) -> Sequence[str]:
        return sorted(_glob(self._pattern), key=_natural)

    @property
    def settled(self) -> bool:
        return all(daemon.source.settled for daemon in self._daemons.values())

    def messages(self) -> list[str]:
        messages, self._messages = self._messages, []
        for daemon in self._daemons.values():
            messages += daemon.source.messages()
        return messages

    def close(self) -> None:
        for daemon in self._daemons.values():
            daemon.source.close()


def names_daemons(uri: str) -> bool:
    """Return whether a URI has a pattern for the path of its socket."""
    found = _SOCKET.search(uri)
    return found is not None and is_pattern(found[0])


def _glob(pattern: str) -> Iterator[str]:
    with suppress(OSError):
        yield from islice(iglob(pattern), 1 << 20)


def _natural(path: str) -> list[tuple[bool, int, str]]:
    """Return a key that orders numbers by their value, before all words."""
    return [
        (not part.isdecimal(), int(part) if part.isdecimal() else 0, part)
        for part in path.split("/")
    ]
