# SPDX-License-Identifier: GPL-2.0-or-later
"""Sockets that come, go and are taken, as a person names them."""

import os
import pickle
import socket
from pathlib import Path

import pytest

from kmemdump.errors import TargetError, UsageError
from kmemdump.targets.qmp import QmpTarget
from kmemdump.watch.sources.sockets import SocketSource
from rigs.fake_qemu import FakeQemu


@pytest.fixture
def bound():
    """``bound(path)`` is a socket that listens there, as QEMU makes it."""
    made = []

    def bind(path, backlog=1):
        path.unlink(missing_ok=True)
        path.parent.mkdir(exist_ok=True)
        server = socket.socket(socket.AF_UNIX)
        made.append(server)
        server.bind(str(path))
        if backlog is not None:
            server.listen(backlog)
        return server

    yield bind
    for server in made:
        server.close()


def names(source):
    return [vm.name for vm in source.vms()]


def test_folder(tmp_path, bound):
    folder = tmp_path / "vms [1]"  # Characters of a pattern.
    folder.mkdir()
    source = SocketSource([str(folder)])
    assert names(source) == []
    bound(folder / "web1.qmp")
    (folder / "web1.log").write_text("no socket")
    (folder / "sub").mkdir()
    (folder / "dangling").symlink_to("nowhere")
    assert names(source) == ["web1"]
    bound(folder / "db.qmp")
    assert names(source) == ["db", "web1"]
    (folder / "web1.qmp").unlink()
    assert names(source) == ["db"]
    assert source.messages() == []


def test_folder_that_comes_later(tmp_path, bound):
    source = SocketSource([f"{tmp_path}/later/"])
    assert names(source) == []
    bound(tmp_path / "later" / "a.qmp")
    assert names(source) == ["a"]


def test_pattern_names_what_it_leaves_open(tmp_path, bound):
    for vm in ("web1", "web2"):
        bound(tmp_path / vm / "qmp.sock")
    bound(tmp_path / "web1" / "qga.sock")
    source = SocketSource([f"{tmp_path}/*/qmp.sock"])
    assert names(source) == ["web1", "web2"]
    source = SocketSource([f"{tmp_path}/web*/q*.sock"])
    assert names(source) == ["web1-qga", "web1-qmp", "web2-qmp"]


def test_names_stay_when_others_come(tmp_path, bound):
    bound(tmp_path / "b.sock")
    source = SocketSource([str(tmp_path)])
    assert names(source) == ["b"]
    bound(tmp_path / "b.qmp")
    found = {vm.path.name: vm.name for vm in source.vms()}
    assert found == {"b.sock": "b", "b.qmp": "b.qmp"}
    (tmp_path / "b.sock").unlink()
    assert names(source) == ["b.qmp"]
    bound(tmp_path / "b.sock")
    assert names(source) == ["b.qmp", "b"]


def test_a_pattern_avoids_the_names_of_named_sockets(tmp_path, bound):
    bound(tmp_path / "x" / "a.qmp")
    bound(tmp_path / "y" / "a.qmp")
    source = SocketSource([f"{tmp_path}/x/a.qmp", f"{tmp_path}/y/"])
    assert names(source) == ["a", "a.qmp"]
    # The same socket twice is one VM.
    source = SocketSource([f"{tmp_path}/x/a.qmp", f"{tmp_path}/x/"])
    assert names(source) == ["a"]


def test_one_socket_by_several_paths(tmp_path, bound):
    """As through a mount, or the root of each process of a container."""
    bound(tmp_path / "a" / "qmp.sock")
    for other in "bc":
        (tmp_path / other).mkdir()
        os.link(tmp_path / "a" / "qmp.sock", tmp_path / other / "qmp.sock")
    assert names(SocketSource([f"{tmp_path}/*/qmp.sock"])) == ["a"]
    named = SocketSource([f"{tmp_path}/b/qmp.sock", f"{tmp_path}/*/qmp.sock"])
    assert names(named) == ["qmp"]


def test_another_life(tmp_path, bound):
    path = tmp_path / "a.qmp"
    source = SocketSource([str(tmp_path)])
    first = bound(path)
    (before,) = source.vms()
    assert source.vms() == [before]
    path.chmod(0o600)  # Whoever manages VMs may do that at any time.
    os.chown(path, os.getuid(), os.getgid())
    assert source.vms() == [before]
    first.close()
    assert source.vms() == [before]  # Its socket is still there.
    bound(path)
    (after,) = source.vms()
    assert (after.name, after.path) == (before.name, before.path)
    assert after.life != before.life


def test_a_named_vm_is_always_there(tmp_path, bound):
    path = tmp_path / "a.qmp"
    source = SocketSource([f"qmp:{path}"])
    (vm,) = source.vms()
    assert vm.obstacle() == f"{path}: cannot connect: No such file or directory"
    server = bound(path, backlog=None)
    (vm,) = source.vms()
    assert str(vm.obstacle()).startswith(f"{path}: cannot connect: Connection refused")
    server.listen(1)
    assert vm.obstacle() is None
    server.close()
    assert str(vm.obstacle()).startswith(f"{path}: cannot connect: Connection refused")
    with pytest.raises(TargetError, match="refused"):
        vm.connect(1)


def test_path_that_is_no_socket(tmp_path):
    (tmp_path / "file").touch()
    (vm,) = SocketSource([f"{tmp_path}/file"]).vms()
    assert vm.obstacle() == f"{tmp_path}/file: is a file, expected a QMP socket"
    (vm,) = SocketSource([f"{tmp_path}/file/x"]).vms()
    assert "cannot connect: Not a directory" in str(vm.obstacle())


def test_taken_by_others(tmp_path, bound):
    server = bound(tmp_path / "a.qmp", backlog=0)
    (vm,) = SocketSource([f"{tmp_path}/a.qmp"]).vms()
    assert vm.obstacle() is None  # The first one waits.
    assert "another client is connected" in str(vm.obstacle())
    server.accept()[0].close()
    assert vm.obstacle() is None


def test_connect(tmp_path):
    qemu = FakeQemu(tmp_path / "a.qmp")
    try:
        (vm,) = SocketSource([f"{tmp_path}/a.qmp"]).vms()
        assert vm.obstacle() is None
        vm = pickle.loads(pickle.dumps(vm))
        with vm.connect(5) as target:
            assert isinstance(target, QmpTarget)
            assert target.name == vm.spec == f"qmp:{tmp_path}/a.qmp"
    finally:
        qemu.close()


def test_long_path(tmp_path, bound):
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    here = Path.cwd()
    os.chdir(folder)  # The address of a socket has 108 bytes.
    try:
        server = socket.socket(socket.AF_UNIX)
        server.bind("a")
        server.listen()
    finally:
        os.chdir(here)
    with server:
        (vm,) = SocketSource([str(folder)]).vms()
        assert vm.obstacle() is None


def test_more_than_can_be_watched(tmp_path, monkeypatch):
    monkeypatch.setattr("kmemdump.watch.sources.sockets._MAX_FILES", 2)
    for name in "abc":
        (tmp_path / name).touch()
    source = SocketSource([str(tmp_path)])
    source.vms()
    (message,) = source.messages()
    assert "more than 2 files" in message
    source.vms()
    assert source.messages() == []


def test_named_twice(tmp_path):
    with pytest.raises(UsageError, match="named twice"):
        SocketSource([f"{tmp_path}/a", f"qmp:{tmp_path}/a"])
