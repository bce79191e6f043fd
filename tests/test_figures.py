# SPDX-License-Identifier: GPL-2.0-or-later
"""The figures in the README are those that a benchmark measured."""

import json
from pathlib import Path

import pytest
from benchmarks.figures import (
    PEERS,
    RECORD,
    fill,
    fill_comparison,
    fill_peers,
    write_peers,
)

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMPARISON = (ROOT / "docs/comparison.rst").read_text()


def figure(name, wall, cpu=0.0, size=0):
    return {"name": name, "cost": {"wall": wall, "cpu": cpu}, "size": size}


def record(**changes):
    dumps = [
        figure("kmemdump, marked beforehand", 0.031, 0, 7_490_000),
        figure("the same, and looked at again", 0.123, 0.1, 7_490_000),
        figure("the same bytes, written and synced", 0.02, 0.004, 7_490_000),
        figure("kmemdump capture, not marked", 1.23, 1.21, 7_490_000),
        figure("QEMU dump-guest-memory, elf", 11.2, 10.4, 4_295_000_000),
        figure("QEMU dump-guest-memory, kdump-zlib", 31.2, 31.2, 1_150_000_000),
    ]
    opened = [
        figure("kmemdump ask, core image, no debug info, first time", 0.35, 0.345),
        figure("kmemdump ask, core image, no debug info, again", 0.27, 0.27),
        figure("drgn, full dump, vmlinux", 0.64, 0.92),
        figure("drgn, the VM through QMP, vmlinux", 0.9, 1.0),
        figure("crash, full dump, vmlinux", 8.4, 8.4),
    ]
    scene = {"plan": {"tasks": 200}, "dumps": dumps, "answers": {"sys": opened}}
    other = {"plan": {"tasks": 2000}, "dumps": [], "answers": {}}
    return {"scenes": [other, {**scene, **changes}], "fleets": []}


def test_tables_are_made_anew():
    filled = fill(README, record())
    assert "|---|--:|--:|--:|\n| `watch`" in filled
    assert "| `watch`: the first file | 0.03 s |  | 7 MB |\n" in filled
    assert "| QEMU `dump-guest-memory`, ELF | 11 s | 10 s | 4,295 MB |\n" in filled
    assert "| `capture`, without a watch | 1.2 s | 1.2 s | 7 MB |\n" in filled
    assert "| the same, again | 0.27 s | 0.27 s | nothing else |\n" in filled
    assert fill(filled, record()) == filled
    # Nothing else has changed.
    before, _, rest = README.partition("<!-- figures: after the death -->")
    assert filled.startswith(before)
    assert filled.endswith(rest.rpartition("<!-- end of figures -->")[2])


def test_what_was_not_measured_has_no_figure():
    with pytest.raises(KeyError, match="dump-guest-memory"):
        fill(README, record(dumps=record()["scenes"][1]["dumps"][:4]))


def test_no_place():
    with pytest.raises(ValueError, match="no place for the figures 'after the death'"):
        fill(README.replace("figures:", ""), record())


def test_the_readme_has_the_figures_of_the_manual():
    path = ROOT / "docs" / RECORD
    if not path.exists():
        pytest.skip("nothing was measured with 'python -m benchmarks --docs docs' yet")
    measured = json.loads(path.read_text())
    assert fill(README, measured) == README
    assert fill_comparison(COMPARISON, measured) == COMPARISON


def machine(memory):
    peers = [
        {"name": "kdump", "seconds": 46.2, "copying": 9.87, "size": 27_300_000},
        {"name": "pstore", "seconds": 8.42, "copying": None, "size": 28_123},
    ]
    cost = {"wall": 0.663, "cpu": 0.612, "problem": ""}
    failed = {"wall": 1.0, "cpu": 1.0, "problem": "exit status 1: nothing"}
    return {
        "memory": memory,
        "release": "6.12-test",
        "peers": [{**it, "reserved": 128 << 20} for it in peers],
        "summaries": [
            {"name": "report", "of": "kdump", "cost": cost},
            {"name": "hotkdump", "of": "kdump", "cost": failed},
        ],
    }


def test_the_comparison_is_made_anew():
    measured = {"load": 0.25, "machines": [machine(1024), machine(16384)]}
    filled = fill_peers(COMPARISON, measured)
    rows = [" ".join(line.split()) for line in filled.splitlines()]
    assert "1 GiB kdump 46 s 9.9 s 27.3 MB 128 MiB" in rows
    assert "16 GiB pstore 8.4 s 0.03 MB 128 MiB" in rows
    assert "16 GiB kdump report 0.66 s 0.61 s" in rows
    assert "1 GiB kdump hotkdump exit status 1" in rows
    assert "The kernel is Debian's 6.12-test; the host's load was 0.2 before." in rows
    assert fill_peers(filled, measured) == filled
    # Tables of reStructuredText: no cell is wider than its column.
    lines = filled.splitlines()
    (at,) = [i for i, line in enumerate(lines) if line.startswith("16 GiB  pstore")]
    rule = next(line for line in lines[at:] if line.startswith("==="))
    assert [i for i, mark in enumerate(rule) if mark == " "] == [
        i for i, mark in enumerate(rule) if mark == " " and lines[at][i : i + 1] in " "
    ]
    with pytest.raises(ValueError, match="no place for the figures 'peers'"):
        fill_peers(COMPARISON.replace("figures:", ""), measured)


def test_the_comparison_has_the_figures_of_the_manual():
    path = ROOT / "docs" / PEERS
    if not path.exists():
        pytest.skip("'python -m benchmarks --peers --docs docs' was not run yet")
    assert fill_peers(COMPARISON, json.loads(path.read_text())) == COMPARISON


@pytest.mark.parametrize("name", [RECORD, PEERS])
def test_records_lack_what_programs_printed(name):
    assert '"output"' not in (ROOT / "docs" / name).read_text()


def test_what_programs_printed_is_not_written(tmp_path):
    cost = {"wall": 1.0, "cpu": 1.0, "problem": "", "output": "File: /home/me/x"}
    summary = {"name": "report", "of": "kdump", "cost": cost}
    machine = {"memory": 1024, "release": "6.12-test", "peers": []}
    measured = {"load": 0.1, "machines": [{**machine, "summaries": [summary]}]}
    (tmp_path / "comparison.rst").write_text(COMPARISON)
    write_peers(tmp_path, measured)
    assert "/home/me" not in (tmp_path / PEERS).read_text()
    assert "1.0 s" in (tmp_path / "comparison.rst").read_text()
