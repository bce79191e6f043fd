# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that is added to a VM while it is watched, and taken away."""

import re
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from kmemdump.coreimage import read_core
from kmemdump.errors import NotCapturedError
from kmemdump.lab import Machine
from kmemdump.lab import machine as machine_module
from kmemdump.lab.crashes import CrashType, trigger_crash
from kmemdump.marking.capture import look
from kmemdump.marking.selection import select
from kmemdump.memory.ranges import Range
from kmemdump.targets.qmp import QmpTarget
from rigs.programs import KMEMDUMP
from rigs.watching import PATIENCE, seconds_of

pytestmark = pytest.mark.vm

MIB, GIB4 = 1 << 20, 1 << 32
MARKED = r"marked .* areas, .* regions"
TASKS = 150


def add_memory(machine: Machine, *, share: bool, how: str = "online") -> None:
    """Give the guest 256 MiB more, and wait until its kernel uses them."""
    before = _total(machine)
    machine.run(f"echo {how} >/sys/devices/system/memory/auto_online_blocks")
    backend: dict[str, object] = {"qom_type": "memory-backend-ram"}
    if share:
        path = str(machine.folder / "ram2")
        backend = {"qom_type": "memory-backend-file", "mem_path": path, "share": True}
    _execute(machine, "object-add", id="more", size=256 * MIB, **backend)
    _execute(machine, "device_add", driver="pc-dimm", id="dimm", memdev="more")
    deadline = time.monotonic() + PATIENCE
    while _total(machine) < before + 200 * 1024:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _execute(machine: Machine, command: str, **arguments: object) -> None:
    machine.control.execute(
        command, {name.replace("_", "-"): it for name, it in arguments.items()}
    )


def _total(machine: Machine) -> int:
    return int(re.search(r"MemTotal: +(\d+)", machine.run("cat /proc/meminfo"))[1])


def start_tasks(machine: Machine) -> None:
    # New memory is of another zone, which the kernel prefers.
    machine.run(f"i=0; while [ $i -lt {TASKS} ]; do sleep 9999 & i=$((i+1)); done")
    # Some of them are still the shell.
    all_of_them = machine.setup.tasks + TASKS
    alive = f"[ $(pidof sleep | wc -w) -ge {all_of_them} ]"
    machine.run(f"until {alive}; do sleep 0.1; done", timeout=PATIENCE)


@pytest.mark.parametrize("share", [pytest.param(False, marks=pytest.mark.matrix), True])
def test_panic_after_memory_was_added(booted, watch, share):
    """The tasks are in the core image although no refresh saw them."""
    machine = booted("6.12", memory=512, more_memory=1024, tasks=8)
    watched = watch(machine, arguments=["--interval", "3600"])
    watched.wait_for(MARKED)
    add_memory(machine, share=share)
    watched.wait_for("its RAM has 768 MiB now, 512 MiB before")
    start_tasks(machine)
    trigger_crash(machine, CrashType.PANIC)
    seconds_of(watched, "panic")
    assert watched.end() == 0
    [core] = watched.cores
    opened = read_core(core)
    assert any(item.address >= GIB4 for item in opened.manifest.regions)
    opened.close()
    check_tasks(core)


@pytest.mark.matrix
def test_added_memory_by_the_process(booted, watch):
    """No event tells of it: a read misses, and links lead to it."""
    machine = booted("6.12", memory=512, more_memory=1024, tasks=8)
    watched = watch(f"pid:{machine.pid}", arguments=["--interval", "2"])
    watched.wait_for(MARKED)
    add_memory(machine, share=False)
    start_tasks(machine)
    watched.wait_for("its RAM has 7[0-9]+ MiB now, 5[0-9]+ MiB before")
    trigger_crash(machine, CrashType.PANIC)
    seconds_of(watched, "panic")
    [core] = watched.cores
    check_tasks(core)


DEVICES = {
    "virtio_mem": (
        *("-object", "memory-backend-ram,id=more,size=256M"),
        *("-device", "virtio-mem-pci,id=changes,memdev=more,requested-size=0"),
    ),
    "virtio_balloon": ("-device", "virtio-balloon-pci,id=changes"),
}
VIRTIO = (
    *("virtio_ring", "virtio", "virtio_pci_legacy_dev"),
    *("virtio_pci_modern_dev", "virtio_pci"),
)


@pytest.mark.matrix
@pytest.mark.parametrize("device", DEVICES)
def test_memory_that_changes_by_virtio(
    lab_cache, make_setup, watch, monkeypatch, device
):
    setup = make_setup("6.12", memory=512, more_memory=1024, tasks=8)
    modules = [it for it in VIRTIO if not setup.kernel.has_builtin(it)]
    setup = replace(setup, more_modules=(*modules, device))
    arguments = machine_module.qemu_arguments
    monkeypatch.setattr(
        machine_module,
        "qemu_arguments",
        lambda *args, **fields: [*arguments(*args, **fields), *DEVICES[device]],
    )
    with Machine(lab_cache, setup) as machine:
        watched = watch(machine, arguments=["--interval", "2"])
        watched.wait_for(MARKED)
        before = _total(machine)
        lines = len(watched.lines)
        if device == "virtio_mem":
            arguments = {"path": "/machine/peripheral/changes"}
            arguments |= {"property": "requested-size", "value": 256 * MIB}
            machine.control.execute("qom-set", arguments)
            changed = range(before + 200 * 1024, before + 300 * 1024)
        else:
            machine.control.execute("balloon", {"value": 320 * MIB})
            changed = range(before - 250 * 1024, before - 150 * 1024)
        deadline = time.monotonic() + PATIENCE
        while _total(machine) not in changed:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        start_tasks(machine)
        trigger_crash(machine, CrashType.PANIC)
        seconds_of(watched, "panic")
        assert watched.end() == 0
        assert not [it for it in watched.lines[lines:] if "lost answers" in it]
        [core] = watched.cores
        check_tasks(core)


def check_tasks(core: Path) -> None:
    done = subprocess.run(
        [*KMEMDUMP, "ask", str(core), "ps"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" sleep") >= TASKS


def test_memory_that_comes_and_goes(booted):
    """Who holds the memory sees it, and whoever looks at the kernel then."""
    machine = booted("6.12", memory=512, more_memory=1024, tasks=8)
    with QmpTarget(machine.qmp) as target:
        held = target.memory
        before = list(held.ranges)
        add_memory(machine, share=False, how="online_movable")
        wait_for_news(target, "its RAM has 768 MiB now, 512 MiB before")
        assert held.ranges[-1] == Range(GIB4, 256 * MIB)
        assert len(held.read(GIB4 + 128 * MIB, 4096)) == 4096
        looked = look(target, select(areas=["memory"]))
        assert looked.complete
        _execute(machine, "device_del", id="dimm")
        wait_for_news(target, "its RAM has 512 MiB now, 768 MiB before")
        assert held.ranges == before
        with pytest.raises(NotCapturedError):
            held.read(GIB4 + 128 * MIB, 1)


def wait_for_news(target: QmpTarget, wanted: str) -> None:
    """Take QEMU's events until they lead to some news, and no other."""
    deadline = time.monotonic() + PATIENCE
    while True:
        event = target.client.event(0.2)
        if event is not None:
            target.note_event(event)
        news = target.follow_memory()
        if news:
            assert news == [wanted]
            return
        assert time.monotonic() < deadline
