# SPDX-License-Identifier: GPL-2.0-or-later
"""The demonstration, on each architecture."""

import json

import pytest

from kmemdump.cli import main
from kmemdump.lab import AARCH64, X86_64

pytestmark = pytest.mark.vm

FRAME = {X86_64: "entry_SYSCALL_64_after_hwframe", AARCH64: "el0t_64_sync"}


@pytest.mark.parametrize(
    ("architecture", "series"),
    [
        pytest.param(X86_64, "6.12", marks=pytest.mark.matrix),  # As in README.
        (AARCH64, "6.12"),
        pytest.param(X86_64, "6.1", marks=pytest.mark.matrix),
    ],
    ids=lambda item: getattr(item, "name", item),
)
def test_demo(architecture, series, lab_cache, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KMEMDUMP_LAB", str(lab_cache.folder))
    demo = ["demo", "-o", str(tmp_path), "--kernel", series]
    # The manual's session of aarch64 tests what is printed for people.
    assert main([*demo, "--arch", architecture.name, "--json"]) == 0
    out, steps = capsys.readouterr()
    assert "== killing it" in steps
    record = json.loads(out)
    core, path = tmp_path / "core.elf", tmp_path / "report.txt"
    assert (record["core"], record["report"]) == (str(core), str(path))
    assert record["size"] == core.stat().st_size
    assert record["machine"] == architecture.name
    assert record["kernel"].startswith(f"{series}.")
    assert record["complete"]
    assert 0 < record["seconds"] < record["finished"]
    assert record["cause"]["kind"] == "panic"
    report = path.read_text()
    for text in (record["cause"]["sentence"], report):
        assert "crash on purpose, through sysrq" in " ".join(text.split())
    for frame in ("panic", "sysrq_handle_crash", FRAME[architecture]):
        assert frame in report
    assert main(["ask", str(tmp_path / "core.elf"), "ps"]) == 0
    assert capsys.readouterr().out.count("sleep") == 200
