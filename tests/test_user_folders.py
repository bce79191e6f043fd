# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a user's files are, and a user who has no home."""

import pwd
from contextlib import closing
from pathlib import Path

import pytest

from kmemdump.cli import main
from kmemdump.errors import UnsupportedError
from kmemdump.kernel.user_builds import user_builds
from kmemdump.lab import default_folder
from kmemdump.opening import open_target
from kmemdump.user_folders import user_folder
from rigs.synthetic import lime, vmcoreinfo, vmcoreinfo_note


@pytest.fixture
def homeless(monkeypatch):
    """A user that is only a number, as in ``podman run --user 12345``."""

    def getpwuid(user: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {user}")

    monkeypatch.setattr(pwd, "getpwuid", getpwuid)
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_folders():
    assert user_folder({"XDG_STATE_HOME": "/x"}, "STATE") == Path("/x/kmemdump")
    assert user_folder({}, "STATE").parts[-3:] == (".local", "state", "kmemdump")


def test_verbs_work_without_a_home(homeless, tmp_path, capsys):
    assert main(["areas"]) == 0
    assert "kmsg" in capsys.readouterr().out
    dump = tmp_path / "vm.lime"
    dump.write_bytes(lime([(0x1000, vmcoreinfo_note(vmcoreinfo()))]))
    assert main(["info", str(dump)]) == 0
    assert "6.1.0-test" in capsys.readouterr().out
    with closing(open_target(str(dump))) as target:
        assert user_builds({}, target) is None  # Nothing is kept.


def test_what_needs_a_home_says_which_variable(homeless):
    with pytest.raises(UnsupportedError, match="no home\nset XDG_CACHE_HOME to a fol"):
        default_folder({})
    assert default_folder({"KMEMDUMP_LAB": "/lab"}) == Path("/lab")
