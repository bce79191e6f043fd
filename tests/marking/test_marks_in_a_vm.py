# SPDX-License-Identifier: GPL-2.0-or-later
"""The verb ``mark`` on a running VM with firmware: marks come, change and go."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kmemdump.arch.architecture import image_address
from kmemdump.cli.shared.agent_output import run_folder
from kmemdump.formats.kinfo import parse_kinfo
from kmemdump.kernel.attach import attach
from kmemdump.lab import CrashType, Machine, Setup
from kmemdump.lab.crashes import trigger_crash
from kmemdump.lab.reserved import kinfo_range
from kmemdump.marking.lock import lock_table, table_name
from kmemdump.opening import open_target
from rigs.firmware_machine import places, registered
from rigs.programs import KMEMDUMP, run_kmemdump
from rigs.snapshots import Snapshots

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def machine(
    snapshots: Snapshots, make_setup: Callable[..., Setup]
) -> Iterator[Machine]:
    """A machine whose table is empty before each test and behind it."""
    with snapshots.machine(make_setup("6.12", firmware=True)) as machine:
        yield machine


def mark(machine: Machine, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_kmemdump("mark", f"qmp:{machine.qmp}", *arguments)


def take_off(machine: Machine) -> None:
    off = mark(machine, "--off", "--json", *places(machine))
    assert off.returncode == 0
    assert json.loads(off.stdout)["text"] == "nothing of ours is registered any more"
    assert registered(machine) == []


def test_scratch_memory_must_be_there_and_free(machine: Machine) -> None:
    refused = mark(machine)
    assert refused.returncode == 1
    assert "no scratch memory of 8040 bytes or more" in refused.stderr
    used = mark(machine, "--scratch", "0x1000000:0x10000")
    assert used.returncode == 2
    assert "is memory that the kernel uses" in used.stderr


def test_another_run_takes_over(machine: Machine) -> None:
    where = places(machine)
    marked = mark(machine, "--no-encryption", *where)
    assert (marked.returncode, marked.stderr) == (0, "")
    rows = registered(machine)
    assert 100 < len(rows) <= 201
    assert [row["name"] for row in rows[:2]] == ["KELF", "Kvmcorein"]
    assert len({row["name"] for row in rows}) == len(rows)

    smaller = mark(machine, *where, "--area", "kmsg", "--json")
    assert smaller.returncode == 0
    held = registered(machine)
    assert 2 < len(held) < len(rows)
    told = json.loads(smaller.stdout)
    described = held[2:]  # Behind what describes the dump.
    assert (told["version"], told["target"]) == (1, f"qmp:{machine.qmp}")
    assert told["regions"] == told["added"] == len(described)
    assert told["bytes"] == sum(row["size"] for row in described)
    assert [area["name"] for area in told["areas"]] == ["coreinfo", "kmsg"]
    assert all(area["fits"] for area in told["areas"])
    assert (told["refused"], told["problems"]) == ([], [])
    assert told["seconds"] > 0
    take_off(machine)


def test_a_daemon_looks_again_and_takes_its_marks_off(machine: Machine) -> None:
    target = f"qmp:{machine.qmp}"
    options = (*places(machine), "--daemon", "--interval", "0.1", "--json")
    staying = subprocess.Popen(
        [*KMEMDUMP, "mark", target, *options], stdout=subprocess.PIPE, text=True
    )
    assert staying.stdout is not None
    assert json.loads(staying.stdout.readline())["added"] > 100
    machine.run("sleep 1000 & echo")
    look = json.loads(staying.stdout.readline())
    assert look["regions"] > 100
    assert look["problems"] == []
    staying.send_signal(signal.SIGTERM)
    out, _ = staying.communicate(timeout=300)
    assert staying.returncode == 0
    last = json.loads(out.splitlines()[-1])
    assert (last["target"], last["text"]) == (
        target,
        "stopped; the regions are taken off",
    )
    assert registered(machine) == []


def test_a_kinfo_has_the_addresses_of_debug_info(
    machine: Machine, vmlinux: Callable[..., Path]
) -> None:
    """Without debug info, all addresses are found that debug info tells."""
    target = f"qmp:{machine.qmp}"
    lost = run_kmemdump("mark", target, "--backend", "kinfo")
    assert lost.returncode == 3
    assert "no device tree reserves memory for a kinfo" in lost.stderr
    place = kinfo_range(machine.setup.architecture)
    where = ("--backend", "kinfo", "--kinfo", f"{place.start:#x}:{place.size:#x}")
    with lock_table(run_folder(os.environ), table_name(target, "kinfo", place.start)):
        for options in (), ("--off",):
            refused = run_kmemdump("mark", target, *where, *options)
            assert refused.returncode == 3
            assert (
                f"process {os.getpid()} already writes to this table" in refused.stderr
            )
    marked = run_kmemdump("mark", target, *where, "--json")
    assert (marked.returncode, marked.stderr) == (0, "")
    told = json.loads(marked.stdout)
    assert told["kinfo"] == hex(place.start)
    assert (told["refused"], told["missing"]) == ([], [])
    opened = open_target(target)
    kinfo = parse_kinfo(opened.memory.read(place.start, place.size), "kinfo")
    kernel = attach(opened, vmlinux=vmlinux("6.12"))
    assert all(kinfo.addresses.values())
    assert told["addresses"] == {name: hex(at) for name, at in kinfo.addresses.items()}
    for name in kinfo.addresses:
        if name == "swapper_pg_dir":  # A macro on x86.
            symbol = kernel.vmcoreinfo.symbol(name)
        else:
            symbol = kernel.prog.symbol(name).address
        assert kinfo.addresses[name] == image_address(kernel.vmcoreinfo, symbol), name
    assert kinfo.num_syms == kernel.prog.read_u32(
        kernel.prog.symbol("kallsyms_num_syms").address
    )
    assert kinfo.checksum_ok
    opened.close()
    assert run_kmemdump("mark", target, *where, "--off").returncode == 0
    assert (
        run_kmemdump("regions", target, "--kinfo", f"{place.start:#x}").returncode == 3
    )


@pytest.mark.matrix
def test_a_kinfo_of_the_newest_kernel(
    booted: Callable[..., Machine], tmp_path: Path
) -> None:
    """Since v7.0, kallsyms have no base; a kinfo still leads to all of the image."""
    machine = booted("newest", firmware=True)
    place = kinfo_range(machine.setup.architecture)
    where = ("--backend", "kinfo", "--kinfo", f"{place.start:#x}:{place.size:#x}")
    marked = run_kmemdump("mark", f"qmp:{machine.qmp}", *where, "--json")
    assert (marked.returncode, marked.stderr) == (0, "")
    told = json.loads(marked.stdout)
    assert (told["refused"], told["missing"]) == ([], [])
    trigger_crash(machine, CrashType.PANIC)
    core = tmp_path / "core"
    kinfo = ("--kinfo", f"{place.start:#x}")
    regions = run_kmemdump("regions", machine.ram or "", *kinfo, "--json")
    assert regions.returncode == 0, regions.stderr
    assert json.loads(regions.stdout)["problems"] == []
    collected = run_kmemdump("collect", machine.ram or "", "-o", core, *kinfo)
    assert collected.returncode == 0, collected.stderr
    log = run_kmemdump("ask", core, "log")
    assert "sysrq triggered crash" in log.stdout
    report = run_kmemdump("report", core)
    assert "made the kernel crash on purpose, through sysrq" in report.stdout


def test_areas_plan_for_the_rows_that_there_are(machine: Machine) -> None:
    planning = ("areas", f"qmp:{machine.qmp}", "--backend", "minidump")
    planned = run_kmemdump(*planning)
    assert planned.returncode == 0
    assert re.search(r"^ +all .* 199 regions, room for 199", planned.stdout, re.M)
    few = run_kmemdump(*planning, "--rows", "12", "--json")
    assert few.returncode == 1
    plan = json.loads(few.stdout)
    assert plan["regions"] <= 10
    assert any("extra bytes" in (area["reason"] or "") for area in plan["areas"])
