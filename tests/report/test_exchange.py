# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports for those who have an engine: ABRT's uReport, Sentry's event, a title."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from jsonschema import Draft202012Validator

from kmemdump.cli import main
from kmemdump.diagnosis.records import Cpu, Frame
from kmemdump.logs.read import parse_log
from kmemdump.report.from_log import gather_from_log
from report.test_from_log import BANNER, END, OOPS, report_of
from rigs.console_logs import log_files
from rigs.satyr import read_ureport

REPORT = report_of(BANNER.format("6.12.9-200.fc41.x86_64", "x") + OOPS + END)

WORD = {"type": "string", "minLength": 1}
COUNT = {"type": "integer", "minimum": 0}
FRAME = {
    "type": "object",
    "properties": {
        "address": COUNT,
        "reliable": {"type": "boolean"},
        "function_name": WORD,
        "function_offset": COUNT,
        "function_length": COUNT,
        "module_name": WORD,
        "special_stack": WORD,
    },
    "required": ["reliable"],
    "additionalProperties": False,
}
UREPORT = {
    "type": "object",
    "properties": {
        "ureport_version": {"const": 2},
        "reason": WORD,
        "reporter": {
            "properties": {"name": WORD, "version": WORD},
            "required": ["name", "version"],
        },
        "os": {
            "properties": {
                "name": WORD,
                "version": WORD,
                "architecture": WORD,
                "uptime": COUNT,
            },
            "additionalProperties": False,
        },
        "problem": {
            "properties": {
                "type": {"const": "kerneloops"},
                "component": WORD,
                "user": {"required": ["root", "local"]},
                "version": WORD,
                "raw_oops": {"type": "string"},
                "taint_flags": {"items": WORD},
                "modules": {"items": WORD},
                "frames": {"items": FRAME},
            },
            "required": ["type", "component", "raw_oops", "frames"],
            "additionalProperties": False,
        },
        "packages": {
            "items": {
                "properties": {"package_role": {"const": "affected"}},
                "required": ["name", "version", "release", "epoch", "architecture"],
            }
        },
    },
    "required": ["ureport_version", "reason", "reporter", "os", "problem"],
    "additionalProperties": False,
}
"""The fields that satyr reads: lib/report.c, lib/koops_*.c, lib/rpm.c."""


def test_ureport():
    report = json.loads(json.dumps(REPORT.to_ureport()))
    Draft202012Validator(UREPORT).validate(report)
    assert report["os"] == {
        "name": "fedora",
        "version": "41",
        "architecture": "x86_64",
        "uptime": 65,
    }
    (package,) = report["packages"]
    assert (package["version"], package["release"]) == ("6.12.9", "200.fc41")
    problem = report["problem"]
    assert problem["taint_flags"] == [
        "warning",
        "module_out_of_tree",
        "unsigned_module",
    ]
    assert problem["frames"][0] == {
        "reliable": True,
        "function_name": "lab_null",
        "function_offset": 5,
        "function_length": 16,
        "module_name": "kmemdump_lab",
    }
    assert problem["raw_oops"].startswith("[   65.100000] BUG: kernel NULL pointer")


def test_satyr_reads_the_same():
    ours = REPORT.to_ureport()
    theirs = read_ureport(ours)
    assert theirs["ureport_version"] == 2
    assert theirs["os"]["name"] == "fedora"
    assert theirs["problem"]["type"] == "kerneloops"
    for field in ("version", "taint_flags", "modules", "raw_oops"):
        assert sorted(theirs["problem"][field]) == sorted(ours["problem"][field]), field
    read = theirs["problem"]["frames"]
    assert len(read) == len(ours["problem"]["frames"])
    for found, wanted in zip(read, ours["problem"]["frames"], strict=True):
        assert found.items() >= wanted.items()
    assert theirs["packages"][0]["release"] == "200.fc41"


def test_satyr_reads_real_deaths():
    for name, data in sorted(log_files("deaths").items())[::6]:
        report = gather_from_log(parse_log(data, name))
        ours = json.loads(json.dumps(report.to_ureport()))
        Draft202012Validator(UREPORT).validate(ours)
        theirs = read_ureport(ours)
        names = [frame.get("function_name") for frame in ours["problem"]["frames"]]
        read = theirs["problem"].get("frames", [])
        assert [frame.get("function_name") for frame in read] == names, name


def test_a_stack_alone():
    """A hang logs nothing: the frames are those of the CPU's stack."""
    frames = (Frame(7, "spin", 3, "lab", stack="irq"), Frame(9, "idle", 1))
    cpu = Cpu(1, online=True, frames=frames)
    cause = replace(REPORT.cause, cpu=1, log=())
    report = replace(REPORT, cpus=(cpu,), trace=(), cause=cause)
    assert report.to_ureport()["problem"]["frames"] == [
        {
            "address": 7,
            "reliable": True,
            "function_name": "spin",
            "function_offset": 3,
            "module_name": "lab",
            "special_stack": "IRQ",
        },
        {"address": 9, "reliable": True, "function_name": "idle", "function_offset": 1},
    ]
    shown = report.to_sentry()["exception"]["values"][0]["stacktrace"]["frames"]
    assert [frame["function"] for frame in shown] == ["idle", "spin"]
    assert shown[-1]["instruction_addr"] == "0x7"


def test_sentry():
    date = datetime(2026, 11, 28, tzinfo=UTC)
    report = replace(REPORT, time=replace(REPORT.time, date=date))
    event = json.loads(json.dumps(report.to_sentry()))
    assert len(bytes.fromhex(event["event_id"])) == 16
    assert (
        event["event_id"]
        == report.to_sentry()["event_id"]
        != (REPORT.to_sentry()["event_id"])
    )
    assert event["level"] == "fatal"
    assert event["timestamp"] == "2026-11-28T00:00:00+00:00"
    assert event["fingerprint"][0] == report.cause.signature.text
    (value,) = event["exception"]["values"]
    assert value["value"] == report.cause.sentence
    # The oldest frame comes first; what the kernel doubts is left out.
    names = [frame["function"] for frame in value["stacktrace"]["frames"]]
    assert names == ["vfs_write", "lab_write", "lab_null"]
    assert value["stacktrace"]["frames"][-1]["package"] == "kmemdump_lab"
    assert event["contexts"]["device"]["model"].startswith("QEMU")
    assert event["release"] == "linux@6.12.9-200.fc41.x86_64"
    assert len(event["breadcrumbs"]["values"]) <= 100


@pytest.mark.parametrize("option", ["--ureport", "--sentry", "--json"])
def test_options_print_json(option, tmp_path, capsys):
    file = tmp_path / "a.log"
    file.write_text(OOPS)
    assert main(["report", str(file), option]) == 0
    assert json.loads(capsys.readouterr().out)


def test_title_and_mail(tmp_path, capsys):
    file = tmp_path / "a.log"
    file.write_text(OOPS)
    assert main(["report", str(file), "--title"]) == 0
    # As syzkaller's pkg/report names such a fault on x86_64.
    title = capsys.readouterr().out
    assert (
        title == "BUG: unable to handle kernel NULL pointer dereference in lab_null\n"
    )
    assert main(["report", str(file), "--mail"]) == 0
    assert "RIP: 0010:lab_null" in capsys.readouterr().out
