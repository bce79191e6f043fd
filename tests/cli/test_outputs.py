# SPDX-License-Identifier: GPL-2.0-or-later
"""No file that is not ours is replaced without --force."""

import pytest

from kmemdump.cli import main
from kmemdump.cli.shared.outputs import check_output
from kmemdump.errors import UsageError
from rigs.small_core import write

LOG = """\
[    1.000000] Linux version 6.1.0 (build@host) #1 SMP
[    2.000000] Kernel panic - not syncing: sysrq triggered crash
"""
VERBS = {
    "report": ("report", "log"),
    "report as a page": ("report", "log", "--html"),
    "capture": ("capture", "log"),
    "collect": ("collect", "log"),
}


@pytest.fixture(autouse=True)
def log(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log").write_text(LOG)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    "contents", [b"root:x:0:0:", b"\x7fELF", b"<!DOCTYPE html>", b'{"version": 1}']
)
def test_a_file_of_someone_is_kept(tmp_path, capsys, verb, contents):
    victim = tmp_path / "victim"
    victim.write_bytes(contents)
    arguments = VERBS[verb]
    option = () if arguments[-1] == "--html" else ("-o",)
    assert main([*arguments, *option, "victim"]) == 2
    assert "victim: exists, and is not known as a " in capsys.readouterr().err
    assert victim.read_bytes() == contents


@pytest.mark.parametrize("option", [(), ("--json",), ("--html",)])
def test_a_report_is_replaced(tmp_path, option):
    where = ("--html", "report") if option == ("--html",) else ("-o", "report", *option)
    for _ in range(2):
        assert main(["report", "log", *where]) in (0, 1)
    assert (tmp_path / "report").stat().st_size


def test_force_replaces_anything(tmp_path):
    (tmp_path / "victim").write_bytes(b"notes")
    assert main(["report", "log", "-o", "victim", "--force"]) in (0, 1)
    assert b"panic" in (tmp_path / "victim").read_bytes()


def test_a_core_image_is_replaced(tmp_path):
    path = write(tmp_path / "core")
    check_output(path, False, "log")
    (tmp_path / "empty").touch()  # As mktemp makes it.
    check_output(tmp_path / "empty", False, "log")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UsageError):
        check_output(path, False, "log")


@pytest.mark.parametrize(
    "verb", ["report", "report as a page", "capture", "collect", "redact", "unseal"]
)
@pytest.mark.parametrize("force", [(), ("--force",)])
def test_what_is_read_is_never_replaced(tmp_path, capsys, verb, force):
    path = write(tmp_path / "core")
    before = path.read_bytes()
    name = verb.split()[0]
    option = "--html" if verb == "report as a page" else "-o"
    arguments = [name, "core", option, "./core", *force]
    if verb == "unseal":
        arguments += ["--identity", "log"]
    assert main(arguments) == 2
    assert "core: is what is read, expected another file" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_report_replaces_no_core_image(tmp_path, capsys):
    path = write(tmp_path / "core")
    before = path.read_bytes()
    assert main(["report", "log", "-o", "core"]) == 2
    assert "is not known as a report" in capsys.readouterr().err
    assert path.read_bytes() == before
