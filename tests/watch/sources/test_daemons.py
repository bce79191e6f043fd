# SPDX-License-Identifier: GPL-2.0-or-later
"""Daemons of libvirt that come and go, as those of pods."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("libvirt", reason="installed by 'make test'")

from kmemdump.errors import UsageError
from kmemdump.watch.sources import daemons
from kmemdump.watch.sources.all import find_sources
from kmemdump.watch.sources.daemons import DaemonSource
from kmemdump.watch.sources.libvirt import LibvirtVm

PATIENCE = 60


class Daemon:
    """What asks one daemon, with the domains that a test gives it."""

    def __init__(self, uri, chosen):
        self.uri = uri
        self.chosen = chosen
        self.found = []
        self.said = []
        self.settled = True
        self.closed = False

    def vms(self):
        return [LibvirtVm(name, self.uri, name, uuid, "1") for name, uuid in self.found]

    def messages(self):
        said, self.said = self.said, []
        return said

    def close(self):
        self.closed = True


@pytest.fixture
def opened(monkeypatch):
    """Daemons by their URI, in the order in which they were found."""
    monkeypatch.setattr(daemons, "_PAUSE", 0.0)
    monkeypatch.setattr(daemons, "_REST", 0.0)
    return {}


@pytest.fixture
def source(opened):
    made = []

    def make(pattern):
        def open_source(uri, chosen):
            opened[uri] = Daemon(uri, chosen)
            return opened[uri]

        uri = f"qemu+unix:///session?socket={pattern}&mode=direct"
        made.append(DaemonSource(uri, None, open_source))
        return made[-1]

    yield make
    for item in made:
        item.close()


def bind(path):
    path.parent.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def uri(path):
    return f"qemu+unix:///session?socket={path}&mode=direct"


def test_daemons_come_and_go(tmp_path, source, opened):
    found = source(f"{tmp_path}/*/sock")
    assert found.vms() == []
    assert found.settled
    one, two = tmp_path / "1" / "sock", tmp_path / "2" / "sock"
    bind(one)
    found.vms()
    first = opened[uri(one)]
    first.found = [("default_web", "u1")]
    bind(two)
    found.vms()
    second = opened[uri(two)]
    second.found = [("default_db", "u2")]
    second.settled = False
    assert [vm.spec for vm in found.vms()] == [
        f"libvirt:{uri(one)}#default_web",
        f"libvirt:{uri(two)}#default_db",
    ]
    assert not found.settled
    second.said = ["trying again"]
    assert found.messages() == ["trying again"]

    # It starts again: the same one, whose source notices that itself.
    one.unlink()
    bind(one)
    found.vms()
    assert (opened[uri(one)], first.closed) == (first, False)
    # It ends: with it, its domains.
    first.said = ["lost"]
    one.unlink()
    assert [vm.name for vm in found.vms()] == ["default_db"]
    assert first.closed
    assert found.messages() == ["lost"]
    # It comes again elsewhere, as the next pod of the same VM does.
    three = tmp_path / "3" / "sock"
    bind(three)
    found.vms()
    opened[uri(three)].found = [("default_web", "u1")]
    assert [vm.name for vm in found.vms()] == ["default_db", "default_web"]
    found.close()
    assert second.closed


def test_names_of_domains_that_are_there_at_once(tmp_path, source, opened):
    """Each keeps its name, whoever else comes."""
    found = source(f"{tmp_path}/*/sock")
    for number in "12":
        bind(tmp_path / number / "sock")
    found.vms()
    first, second = opened.values()
    first.found = [("web", "u1")]
    second.found = [("web", "u2")]
    assert [vm.name for vm in found.vms()] == ["web", "web-2"]
    second.found = [("web", "u1")]  # A copy of the other, or its migration.
    assert [vm.name for vm in found.vms()] == ["web", "web-3"]
    first.found = []
    assert [vm.name for vm in found.vms()] == ["web"]


def test_several_paths_of_one_socket(tmp_path, source, opened):
    """As of each process of a pod: the first one's is used."""
    for number in ("9", "10", "self"):
        (tmp_path / number).mkdir()
    bind(tmp_path / "10" / "sock")
    for number in ("9", "self"):
        os.link(tmp_path / "10" / "sock", tmp_path / number / "sock")
    found = source(f"{tmp_path}/*/sock")
    found.vms()
    assert [*opened] == [uri(tmp_path / "9" / "sock")]
    (tmp_path / "9" / "sock").unlink()
    found.vms()
    assert [*opened][1:] == [uri(tmp_path / "10" / "sock")]


def test_too_many(tmp_path, source, opened, monkeypatch):
    monkeypatch.setattr(daemons, "_MAX_DAEMONS", 1)
    for number in "12":
        bind(tmp_path / number / "sock")
    found = source(f"{tmp_path}/*/sock")
    found.vms()
    (message,) = found.messages()
    assert "more than 1 daemons" in message
    found.vms()
    assert (found.messages(), len(opened)) == ([], 1)


POD = """
import socket, subprocess, sys, time
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
child = subprocess.Popen(["sleep", "1000"])  # Another process of the pod.
print("listens", flush=True)
sys.stdin.read()
"""


def _processes(pid):
    """Yield a process, and those that it started."""
    yield pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield from _processes(int(child))


class Pod:
    """Processes in PID and mount namespaces of their own; a socket in their /run."""

    def __init__(self, path):
        options = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        inside = f'mount -t tmpfs pod /run && exec {sys.executable} -c "$0" {path}'
        self.process = subprocess.Popen(
            ["unshare", *options, "sh", "-c", inside, POD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "listens\n"
        # unshare itself has no PID namespace. The others may have lower numbers: after
        # the largest, the kernel begins anew.
        self.first = min(_processes(self.process.pid))

    def end(self):
        self.process.kill()
        self.process.communicate()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_pods(source, opened):
    """Pods that start after the source, through the processes that are in them."""
    # It is on no tmpfs but theirs, nor on those of another run of this test.
    path = Path(f"/run/kmemdump-pod-{os.getpid()}.sock")
    found = source(f"/proc/*/root{path}")
    assert (found.vms(), opened) == ([], {})
    started = []
    try:
        for number in (1, 2):
            started.append(Pod(path))
            found.vms()
            assert len(opened) == number
            assert [*opened][-1] == uri(f"/proc/{started[-1].first}/root{path}")
        started[0].end()
        first, second = opened.values()
        deadline = time.monotonic() + PATIENCE
        while not first.closed:  # The kernel may still be ending its processes.
            assert time.monotonic() < deadline
            found.vms()
        assert not second.closed
        started.append(Pod(path))
        found.vms()
        assert len(opened) == 3
    finally:
        for pod in started:
            pod.end()
    assert not path.exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("qemu+ssh://host/system?socket=/run/*", "VMs of another host"),
        ("qemu+unix:///system?socket=run/*", "names no absolute path of a socket"),
    ],
)
def test_wrong_use(text, problem):
    with pytest.raises(UsageError, match=problem):
        find_sources([], [text])


def test_chosen_by_its_uri(tmp_path):
    sources = find_sources([], [uri(f"{tmp_path}/*")])
    assert sources.vms() == []
    assert sources.settled
    sources.close()
