# SPDX-License-Identifier: GPL-2.0-or-later
"""What is listed of a libvirt daemon that is not there."""

import multiprocessing
import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("libvirt", reason="installed by 'make test'")

from kmemdump.watch.sources import domains
from kmemdump.watch.sources.domains import Domain, find_domains
from kmemdump.watch.sources.libvirt import DomainFilter


class Connection:
    """One running domain."""

    alive = True

    def __init__(self, *_):
        import libvirt

        self.libvirt = libvirt
        domain = SimpleNamespace(
            name=lambda: "web1", ID=lambda: 2, UUIDString=lambda: "u", XMLDesc=str
        )
        self.raw = SimpleNamespace(
            listAllDomains=lambda _: [domain], domainEventRegisterAny=lambda *_: 0
        )

    def call(self, function, _):
        return function()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.mark.parametrize("process_appears", [True, False])
def test_process_that_is_not_yet_known(monkeypatch, process_appears):
    """A domain has one life, though its process is known a moment later."""
    pids = iter([0, 0])
    later = 1 if process_appears else 0
    monkeypatch.setattr(domains, "LibvirtConnection", Connection)
    monkeypatch.setattr(domains, "daemon_of", lambda _: 0)
    monkeypatch.setattr(domains, "find_process", lambda *_: next(pids, later))
    monkeypatch.setattr(domains, "start_time", lambda pid: 7 if pid else 0)
    monkeypatch.setattr(domains, "_PROCESS_WAIT", 1.0 if not process_appears else 60.0)
    monkeypatch.setattr(domains.signal, "signal", lambda *_: None)
    ours, theirs = multiprocessing.Pipe(duplex=False)
    threading.Thread(
        target=find_domains, args=(theirs, "", DomainFilter()), daemon=True
    ).start()
    try:
        first = ours.recv().domains
        assert first == []  # It is left out,
        life = "2-1-7" if process_appears else "2-0-0"  # but not for ever.
        assert ours.recv().domains == [Domain("web1", "u", life)]
    finally:
        ours.close()
        monkeypatch.setattr(Connection, "alive", False)
