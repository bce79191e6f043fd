# SPDX-License-Identifier: GPL-2.0-or-later
"""What the program says of redacted core images, and of files that it refuses."""

import json

from kmemdump.catalogue.row import Row
from kmemdump.cli import main
from kmemdump.coreimage import read_core
from rigs.small_core import write


def test_what_is_no_core_image_is_refused(tmp_path, capsys):
    path = tmp_path / "text"
    path.write_text("no core image")
    assert main(["redact", str(path), "-o", str(tmp_path / "out.core")]) != 0
    assert not (tmp_path / "out.core").exists()
    assert "kmemdump: error: " in capsys.readouterr().err


def test_a_core_image_without_a_kernel_is_refused(tmp_path, capsys):
    core = write(tmp_path / "vm.core")
    assert main(["redact", str(core), "-o", str(tmp_path / "out.core")]) == 3
    assert not (tmp_path / "out.core").exists()
    assert "Traceback" not in capsys.readouterr().err


def test_a_policy_that_is_none_is_refused_before_anything_is_read(tmp_path, capsys):
    core = write(tmp_path / "vm.core")
    policy = tmp_path / "p.toml"
    policy.write_text("version = 1\nname = 'p'\nbase = 'share'\nx = 1\n")
    out = str(tmp_path / "out.core")
    assert main(["redact", str(core), "-o", out, "--policy", str(policy)]) == 3
    assert f"{policy}: x: no such entry" in capsys.readouterr().err
    assert main(["redact", str(core), "-o", out, "--policy", "all"]) == 2
    assert "there are share, strict" in capsys.readouterr().err


def test_other_files_are_not_replaced(tmp_path, capsys):
    core = write(tmp_path / "vm.core")
    notes = tmp_path / "notes"
    notes.write_text("mine")
    assert main(["redact", str(core), "-o", str(notes)]) == 2
    assert notes.read_text() == "mine"
    assert "--force replaces it" in capsys.readouterr().err


def test_a_manifest_says_by_which_policy(tmp_path, capsys):
    core = write(tmp_path / "vm.core")
    with read_core(core) as found:
        assert found.manifest is not None
        manifest = found.manifest._replace(redacted="share, strict")
    again = type(manifest).from_json(manifest.to_json(), "test")
    assert again.redacted == "share, strict"
    assert "redacted" not in json.loads(manifest._replace(redacted="").to_json())


def test_a_row_of_the_catalogue_has_the_policy():
    assert "redacted" in Row.__dataclass_fields__
