# SPDX-License-Identifier: GPL-2.0-or-later
"""A report of a log without what names a machine."""

import json

import pytest

from kmemdump.cli import main

LINES = (
    "Linux version 6.12.9 (ann@build7.example.com)",
    "eth0: up on db7, 10.1.2.3 from 52:54:00:12:34:56",
    "sysrq: Trigger a crash",
    "Kernel panic - not syncing: sysrq triggered crash",
    "CPU: 1 PID: 77 Comm: bash Not tainted 6.12.9 #1",
    "Call Trace:",
    " sysrq_handle_crash+0x1a/0x20",
    "---[ end Kernel panic - not syncing: sysrq triggered crash ]---",
)
LOG = "".join(
    f"Nov 28 10:00:0{n} db7 kernel: [    {n}.000000] {line}\n"
    for n, line in enumerate(LINES)
)
SECRETS = ("db7", "ann", "example.com", "10.1.2.3", "52:54:00")


@pytest.fixture
def path(tmp_path):
    found = tmp_path / "db7.log"
    found.write_text(LOG)
    return found


@pytest.mark.parametrize("options", [["--redact"], ["--policy", "strict"]])
@pytest.mark.parametrize("form", [[], ["--json"], ["--mail"]])
def test_a_report_of_a_log_names_nobody(path, options, form, capsys):
    main(["report", str(path), *options, *form])
    said = capsys.readouterr().out
    assert not [it for it in SECRETS if it in said]
    assert "Kernel panic - not syncing: sysrq triggered crash" in said or form


def test_the_cause_is_the_same(path, capsys):
    assert main(["report", str(path), "--json"]) == 0
    before = json.loads(capsys.readouterr().out)
    assert main(["report", str(path), "--json", "--redact"]) == 0
    after = json.loads(capsys.readouterr().out)
    assert before["cause"]["sentence"] == after["cause"]["sentence"]
    assert before["cause"]["signature"] == after["cause"]["signature"]
    assert (before.get("redacted"), after["redacted"]) == (None, "share")


def test_the_page_says_so(path, tmp_path):
    page = tmp_path / "page.html"
    main(["report", str(path), "--redact", "--html", str(page)])
    text = page.read_text()
    assert "Data was removed by policy share" in text
    assert not [it for it in SECRETS if it in text]
