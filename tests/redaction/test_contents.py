# SPDX-License-Identifier: GPL-2.0-or-later
"""Which kinds of data there are, and where."""

import json

from kmemdump.areas import AREAS
from kmemdump.areas.contents import CONTENTS, KINDS
from kmemdump.cli import main
from kmemdump.redaction.policy import POLICIES, load_policy
from kmemdump.redaction.render import _WHOLE
from rigs.small_core import write


def test_each_area_says_what_it_holds():
    assert {area.name for area in AREAS} == CONTENTS.keys()
    assert {kind for kinds in CONTENTS.values() for kind in kinds} <= KINDS.keys()


def test_each_kind_that_is_counted_has_words():
    counted = {*_WHOLE.values(), *load_policy(POLICIES[0]).kinds}
    assert counted <= KINDS.keys()


def test_info_lists_the_kinds_of_a_core_image(tmp_path, capsys):
    core = write(tmp_path / "vm.core", areas=("kmsg", "net"))
    assert main(["info", str(core), "--contents"]) == 0
    said = capsys.readouterr().out
    assert "not redacted" in said
    assert "log-text\n  the text of the kernel log" in said
    assert "areas: kmsg" in said
    assert "network-addresses" in said
    assert "module-names" not in said
    assert main(["info", str(core), "--contents", "--json"]) == 0
    kinds = {it["kind"]: it for it in json.loads(capsys.readouterr().out)["kinds"]}
    assert kinds["network-addresses"]["areas"] == ["net"]
    assert kinds["registers"]["areas"] == []


def test_an_area_of_a_user_may_hold_anything(tmp_path, capsys):
    core = write(tmp_path / "vm.core", areas=("mine",))
    assert main(["info", str(core), "--contents"]) == 0
    assert "arguments\n" in capsys.readouterr().out


def test_info_refuses_what_is_no_core_image(tmp_path, capsys):
    path = tmp_path / "ram"
    path.write_bytes(bytes(1 << 20))
    assert main(["info", str(path), "--contents"]) != 0
