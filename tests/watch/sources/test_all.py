# SPDX-License-Identifier: GPL-2.0-or-later
"""Several sources as one."""

import socket
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kmemdump.errors import UsageError
from kmemdump.watch.sources.all import Sources, find_sources
from kmemdump.watch.sources.sockets import SocketVm


@dataclass
class Fixed:
    """A source with the VMs that a test gives it."""

    found: list[SocketVm]
    said: list[str] = field(default_factory=list)
    closed: bool = False

    def vms(self):
        return self.found

    def messages(self):
        said, self.said = self.said, []
        return said

    def close(self):
        self.closed = True


def vm(name):
    return SocketVm(name, Path(f"/{name}"), "1")


def test_no_two_vms_of_one_name():
    one, two = Fixed([vm("a")]), Fixed([vm("a"), vm("b")])
    sources = Sources([one, two])
    assert [vm.name for vm in sources.vms()] == ["a", "a-2", "b"]
    one.found = []
    assert [vm.name for vm in sources.vms()] == ["a-2", "b"]


def test_messages_and_end():
    one, two = Fixed([], ["x"]), Fixed([], ["y"])
    sources = Sources([one, two])
    assert sources.messages() == ["x", "y"]
    assert sources.messages() == []
    sources.close()
    assert one.closed
    assert two.closed


def test_filter_by_name():
    sources = Sources([Fixed([vm("web1"), vm("db"), vm("mail")])], ["web*", "mail"])
    assert [vm.name for vm in sources.vms()] == ["web1", "mail"]


def test_sockets(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{tmp_path}/b")
        with closing(find_sources([f"{tmp_path}/a", f"{tmp_path}/"])) as sources:
            assert [vm.name for vm in sources.vms()] == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (([],), "no VM, expected"),
        ((["a"], [], [], ["title=x"]), "expected --libvirt"),
        (([], ["x"]), "no URI of libvirt"),
        (([], ["xen:///system"]), "VMs of 'xen'"),
        (([], ["qemu+ssh://host/system"]), "VMs of another host"),
        (([], ["", ""]), "named twice"),
        (([], ["qemu:///system"], [], ["title"]), "KEY=VALUE"),
        ((["libvirt:"],), "no domain"),
    ],
)
def test_wrong_use(arguments, problem):
    with pytest.raises(UsageError, match=problem):
        find_sources(*arguments)
