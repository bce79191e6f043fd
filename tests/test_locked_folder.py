# SPDX-License-Identifier: GPL-2.0-or-later
"""Temporary folders of killed processes go, and nothing else does."""

import os
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from kmemdump.errors import UnsupportedError
from kmemdump.lab.machine_folder import MachineFolder
from kmemdump.locked_folder import LockedFolder
from rigs.full_disk import mounted_tmpfs, needs_root

NEED = 1 << 20


def age(path: Path) -> Path:
    os.utime(path, (0, 0))
    return path


def left_in(parent: Path) -> Path:
    """Return a folder whose maker was killed."""
    folder = LockedFolder(parent)
    os.close(folder.descriptor)
    return age(folder.path)


@pytest.fixture
def places(monkeypatch, tmp_path):
    """What stands for /dev/shm, and for the folder of temporary files."""
    monkeypatch.setattr("kmemdump.lab.machine_folder._SHARED_MEMORY", tmp_path)
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # A short path.
        monkeypatch.setattr("tempfile.tempdir", name)
        yield tmp_path, Path(name)


def test_a_folder_outlives_its_maker(tmp_path):
    folder = LockedFolder(tmp_path)
    assert folder.path.stat().st_mode & 0o777 == 0o700
    age(folder.path)
    heir = subprocess.Popen(["sleep", "100"], pass_fds=[folder.descriptor])
    os.close(folder.descriptor)  # As if Python had been killed.
    young = LockedFolder(tmp_path)
    assert folder.path.exists()
    heir.kill()
    heir.wait()
    LockedFolder(tmp_path).close()
    assert not folder.path.exists()
    assert young.path.exists()
    young.close()
    assert not list(tmp_path.iterdir())


def test_what_others_made_stays(tmp_path):
    name = left_in(tmp_path).name
    (tmp_path / name).rmdir()
    full = tmp_path / "full"
    full.mkdir()
    (tmp_path / "kmemdump-lab-results").mkdir()
    (tmp_path / f"{name}-mine").mkdir()
    (tmp_path / name[:-1]).mkdir()
    (tmp_path / f"{name[:-2]}0a").touch()
    (tmp_path / f"{name[:-2]}0b").symlink_to(full)
    made = sorted(age(path) for path in tmp_path.iterdir())
    with LockedFolder(tmp_path):
        pass
    assert sorted(tmp_path.iterdir()) == made


@needs_root
def test_another_users_folder_stays(tmp_path):
    theirs = left_in(tmp_path)
    os.chown(theirs, 65534, 65534)
    with LockedFolder(tmp_path):
        assert theirs.exists()


def test_a_machine_removes_what_is_left_in_both_places(places):
    left = [left_in(parent) for parent in places]
    folder = MachineFolder(NEED)
    assert folder.path.parent == places[0]
    folder.close()
    assert not any(path.exists() for path in left)


@needs_root
def test_a_machine_without_room(places, tmp_path, monkeypatch):
    _, temporary = places
    with mounted_tmpfs(tmp_path, 2 << 20) as disk:
        monkeypatch.setattr("kmemdump.lab.machine_folder._SHARED_MEMORY", disk)
        with pytest.raises(UnsupportedError, match=r"for 999999 MiB .*TMPDIR names"):
            MachineFolder(999_999 << 20)
        folder = MachineFolder(4 << 20)
        assert folder.path.parent == temporary
        folder.close()


def test_a_machine_in_a_long_path(monkeypatch):
    """The longest in which its socket can be bound is taken."""
    monkeypatch.setattr("kmemdump.lab.machine_folder._SHARED_MEMORY", Path("/nowhere"))
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        place = Path(short, (76 - len(short)) * "x")
        for path in (place, longer := place.with_name(f"{place.name}y")):
            path.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(place))
        folder = MachineFolder(NEED)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(folder.path / "qmp"))
        folder.close()
        monkeypatch.setattr("tempfile.tempdir", str(longer))
        with pytest.raises(UnsupportedError, match=r"78 bytes, .*TMPDIR names another"):
            MachineFolder(NEED)
