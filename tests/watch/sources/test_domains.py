# SPDX-License-Identifier: GPL-2.0-or-later
"""What is listed of a libvirt daemon that is not there, or that ends meanwhile."""

import errno
import multiprocessing
import os
import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("libvirt", reason="installed by 'make test'")

from kmemdump.errors import TargetError
from kmemdump.watch.sources import domains
from kmemdump.watch.sources.domains import Domain, find_domains
from kmemdump.watch.sources.libvirt import DomainFilter, LibvirtSource
from kmemdump.watch.sources.metadata import MetadataFilter


class Connection:
    """One running domain."""

    alive = True
    describe = staticmethod(lambda _: "<domain/>")

    def __init__(self, *_):
        import libvirt

        self.libvirt = libvirt
        domain = SimpleNamespace(
            name=lambda: "web1",
            ID=lambda: 2,
            UUIDString=lambda: "u",
            XMLDesc=lambda flags: type(self).describe(flags),
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


@pytest.fixture
def start(monkeypatch):
    """Starts to list; returns where reports are received."""
    monkeypatch.setattr(domains, "LibvirtConnection", Connection)
    monkeypatch.setattr(domains, "daemon_of", lambda _: 0)
    monkeypatch.setattr(domains, "start_time", lambda pid: 7 if pid else 0)
    monkeypatch.setattr(domains, "_RETRY", (0.01,))
    monkeypatch.setattr(domains.signal, "signal", lambda *_: None)
    ours, theirs = multiprocessing.Pipe(duplex=False)

    threads = []

    def start(*metadata):
        chosen = DomainFilter(metadata=metadata)
        threads.append(threading.Thread(target=find_domains, args=(theirs, "", chosen)))
        threads[0].start()
        return ours

    yield start
    ours.close()
    monkeypatch.setattr(Connection, "alive", False)
    monkeypatch.setattr(domains.os, "getppid", lambda: 0)
    threads[0].join()


@pytest.mark.parametrize("process_appears", [True, False])
def test_process_that_is_not_yet_known(monkeypatch, start, process_appears):
    """A domain has one life, though its process is known a moment later."""
    pids = iter([0, 0])
    later = 1 if process_appears else 0
    monkeypatch.setattr(domains, "find_process", lambda *_: next(pids, later))
    monkeypatch.setattr(domains, "_PROCESS_WAIT", 1.0 if not process_appears else 60.0)
    reports = start()
    assert reports.recv().domains == []  # It is left out,
    life = "2-1-7" if process_appears else "2-0-0"  # but not for ever.
    assert reports.recv().domains == [Domain("web1", "u", life)]


def test_process_hidden_by_a_daemon_that_ended(monkeypatch, start):
    """Nothing is known to have ended."""
    done = threading.Event()
    pids = iter([1, 0, 0, 1, 1])

    def find(*_):
        pid = next(pids, 2)
        if pid == 2:
            done.set()
        return pid

    monkeypatch.setattr(domains, "find_process", find)
    monkeypatch.setattr(domains, "_RELIST", 0.0)
    monkeypatch.setattr(domains, "_CHECK", 0.01)
    reports = start()
    assert reports.recv().domains == [Domain("web1", "u", "2-1-7")]
    assert done.wait(60)
    assert reports.recv().domains == [Domain("web1", "u", "2-2-7")]


@pytest.mark.parametrize("ended", [True, False])
def test_domain_that_cannot_be_described(monkeypatch, start, ended):
    """It ended, or its daemon did, of which nothing follows for the domain."""
    import libvirt

    class Error(libvirt.libvirtError):
        def get_error_code(self):
            return libvirt.VIR_ERR_NO_DOMAIN if ended else libvirt.VIR_ERR_RPC

    failures = iter([False, True])

    def describe(_):
        if next(failures, False):
            raise Error("")
        return "<domain><title>web</title></domain>"

    def call(_self, function, _):
        try:
            return function()
        except Error as error:
            raise TargetError("libvirt: its daemon ended") from error

    monkeypatch.setattr(Connection, "call", call)
    monkeypatch.setattr(Connection, "describe", staticmethod(describe))
    monkeypatch.setattr(domains, "find_process", lambda *_: 1)
    monkeypatch.setattr(domains, "_RELIST", 0.0)
    monkeypatch.setattr(domains, "_CHECK", 0.01)
    reports = start(MetadataFilter.parse("title=web"))
    assert reports.recv().domains == [Domain("web1", "u", "2-1-7")]
    second = reports.recv()
    if ended:
        assert second.domains == []
    else:
        assert second.domains is None
        assert second.message == "libvirt: its daemon ended; trying again"
        assert reports.recv().message == "libvirt answers again"


def test_no_process_can_be_started(monkeypatch):
    """The host is short of memory: the watch of all VMs goes on, and it tries again."""
    started = []

    def start(process):
        started.append(process)
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr("multiprocessing.context.SpawnProcess.start", start)
    source = LibvirtSource()
    source._delay = 0.0
    for _ in range(2):
        assert source.vms() == []
        assert "Cannot allocate memory" in source.messages()[-1]
    assert len(started) == 2
    source.close()
