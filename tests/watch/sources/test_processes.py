# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs by their processes and by API sockets."""

import os
import pickle
import socket
import subprocess

import pytest

from kmemdump.errors import TargetError, UsageError
from kmemdump.watch.sources.all import find_sources
from kmemdump.watch.sources.processes import ProcessSource


@pytest.fixture
def process():
    with subprocess.Popen(["sleep", "1000"]) as found:
        yield found
        found.kill()


def test_a_process(process):
    source = ProcessSource([f"pid:{process.pid}"] * 2)
    [vm] = source.vms()
    assert vm.name == f"sleep-{process.pid}"
    assert vm.spec == f"pid:{process.pid}"
    assert pickle.loads(pickle.dumps(vm)) == vm
    assert vm.with_name("web1").name == "web1"
    assert vm.obstacle() is None
    with vm.connect(1) as target:
        assert target.name == vm.spec
    process.kill()
    process.wait()
    assert vm.obstacle() == f"process {process.pid} has ended"
    with pytest.raises(TargetError):
        vm.connect(1)
    assert source.vms() == []


def test_another_process_with_its_id(process):
    """The kernel gives an id again."""
    [vm] = ProcessSource([f"pid:{os.getpid()}"]).vms()
    other = type(vm)(vm.name, process.pid, vm.life)
    assert other.obstacle() == f"process {process.pid} has ended"
    with pytest.raises(TargetError, match="has ended"):
        other.connect(1)


def test_an_api_socket(tmp_path):
    path = tmp_path / "web1.sock"
    source = ProcessSource([f"firecracker:{path}"])
    [before] = source.vms()
    assert (before.name, before.spec) == ("web1", f"firecracker:{path}")
    assert before.obstacle() == f"{path}: cannot connect: No such file or directory"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        [vm] = source.vms()
        assert vm.obstacle() is None
        assert vm.life != before.life
        assert pickle.loads(pickle.dumps(vm)) == vm


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("pid:", "pid:: names no process"),
        ("pid:-1", "pid:-1: names no process"),
        ("pid:4294967295", "pid:4294967295: there is no such process"),
    ],
)
def test_no_process(spec, problem):
    with pytest.raises(UsageError, match=problem):
        find_sources([spec])


def test_beside_sockets(process, tmp_path):
    found = find_sources([f"pid:{process.pid}", str(tmp_path / "a"), "ch:/run/b.sock"])
    assert sorted(vm.spec for vm in found.vms()) == [
        "ch:/run/b.sock",
        f"pid:{process.pid}",
        f"qmp:{tmp_path}/a",
    ]
