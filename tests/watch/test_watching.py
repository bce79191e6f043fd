# SPDX-License-Identifier: GPL-2.0-or-later
"""Watching VMs that live, idle, reboot, vanish and die."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from itertools import dropwhile, takewhile

import pytest

from kmemdump.catalogue.place import Place
from kmemdump.catalogue.store import Catalogue
from kmemdump.coreimage import read_core, verify
from kmemdump.lab import AARCH64, ARCHITECTURES, X86_64, CrashType
from kmemdump.lab.crashes import trigger_crash
from rigs.manual import DOCS
from rigs.programs import KMEMDUMP, run_kmemdump
from rigs.scenarios import tells
from rigs.watching import PATIENCE, seconds_of

pytestmark = pytest.mark.vm

REBOOTS = "panic=none,reboot=reset,shutdown=poweroff"
LONG = 8
"""Samples of which 6, enough to report a hang of 3 s, are after the last sign."""
MARKED = r"marked .* areas, .* regions"


def check_core(path, *expected, options=()):
    """The core image is whole, and answers `bt -a` and `log`."""
    core = read_core(path)
    try:
        assert verify(core) == []
        assert core.manifest.marked_at is not None
    finally:
        core.close()
    assert path.stat().st_mode & 0o777 == 0o600
    done = subprocess.run(
        [*KMEMDUMP, "ask", *options, str(path), "bt -a", "log"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    for text in ("PID:", *expected):
        assert text in done.stdout
    return done.stdout


def released(path):
    with read_core(path) as core:
        return core.manifest.kernel.osrelease


def read_catalogue(place):
    """Source, release, and whether there is a signature, of two deaths."""
    catalogue = Catalogue(Place(str(place)))
    sql = "SELECT source, release, signature IS NOT NULL FROM deaths ORDER BY seen"
    deadline = time.monotonic() + PATIENCE
    rows, known = [], 0
    while len(rows) < 2:  # The watch does not wait for it.
        assert time.monotonic() < deadline
        time.sleep(0.1)
        if known != (known := len(catalogue.files())):
            rows = catalogue.ask(lambda it: it.rows(sql))
    return rows


def write_manuals_program(folder):
    """Write what the manual shows for ``--exec``, and a ``logger`` that it calls."""
    lines = iter((DOCS / "howto/service.rst").read_text().splitlines())
    script = "\n".join(it[3:] for it in takewhile(str, dropwhile(is_no_script, lines)))
    logger = f"#!/bin/sh\nprintf '%s\\n' \"$*\" >>'{folder}/logged'"
    for name, text in (("died", script), ("logger", logger)):
        (folder / name).write_text(f"{text}\n")
        (folder / name).chmod(0o755)
    return folder / "died"


def is_no_script(line):
    return line != "   #!/bin/sh"


def test_event(booted, watch, tmp_path, monkeypatch):
    """
    The guest tells QEMU; its RAM is not shared. It idles and oopses first. The
    operator's program hears of both deaths, and both are in a catalogue.
    """
    machine = booted("6.12", pvpanic=True, share=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program = write_manuals_program(tmp_path)
    arguments = ["--interval", "2", "--hang-after", "3", "--exec", str(program)]
    arguments += ["--catalogue", str(tmp_path / "deaths")]
    watched = watch(machine, arguments=arguments)
    watched.wait_for(MARKED)
    watched.wait_without_alarm(LONG)
    machine.run("sh -c 'echo null >/sys/module/kmemdump_lab/parameters/die' &")
    seconds_of(watched, "oops: The kernel dereferenced a NULL pointer")
    assert machine.run("echo I live") == "I live"
    machine.run("echo it was seen after the marking >/dev/kmsg")
    trigger_crash(machine, CrashType.PANIC)
    seconds = seconds_of(watched, "panic")
    assert watched.end() == 0
    assert machine.control.status() == "guest-panicked"
    assert seconds < 20  # 0.3 s on a host with nothing else to do.
    oops, core = watched.cores
    first, second = (tmp_path / "logged").read_text().splitlines()
    assert re.fullmatch(rf"-p user.crit \S+: oops: The kernel .*: {oops}", first)
    assert re.fullmatch(rf"-p user.crit \S+: panic.*: {core}", second)
    check_core(oops, "kernel NULL pointer dereference")
    check_core(core, "sysrq_handle_crash", "it was seen after the marking")
    assert read_catalogue(tmp_path / "deaths") == [
        (str(path), released(path), True) for path in (oops, core)
    ]


@pytest.mark.matrix
def test_busy_then_frozen(booted, watch):
    """
    The only CPU. A busy user, a VM that was paused and a QEMU that hangs are no
    frozen kernels.
    """
    machine = booted("6.12", cpus=1)
    watched = watch(
        machine,
        arguments=["--hang-after", "3", "--then", "continue", "--interval", "1"],
    )
    watched.wait_for(MARKED)
    machine.run("busybox timeout 25 sh -c 'while :; do :; done' &")
    watched.wait_without_alarm(LONG)
    machine.pause()
    watched.wait_without_alarm(LONG)
    machine.resume()
    watched.wait_without_alarm(LONG)
    os.kill(machine.pid, signal.SIGSTOP)
    watched.wait_for("no answer from QEMU in .*; its memory is still watched")
    os.kill(machine.pid, signal.SIGCONT)
    watched.wait_without_alarm(LONG)
    trigger_crash(machine, CrashType.SPIN)
    seconds_of(watched, "frozen: CPU 0 served no interrupt for")
    watched.wait_without_alarm(LONG)  # Reported once.
    watched.process.send_signal(signal.SIGTERM)
    assert watched.end() == 0
    [core] = watched.cores
    check_core(core, "lab_spin", 'COMMAND: "sh"')


def test_one_of_two_frozen_then_nmi(booted, watch):
    """The other CPU goes on ticking. An NMI makes the guest panic, in memory only."""
    machine = booted("6.12")
    watched = watch(
        machine,
        arguments=["--hang-after", "5", "--interval", "3", "--then", "continue"],
    )
    watched.wait_for(MARKED)
    machine.run("echo 1 >/proc/sys/kernel/unknown_nmi_panic")
    trigger_crash(machine, CrashType.SPIN)
    seconds_of(watched, r"frozen: CPU [01] served no interrupt for")
    machine.control.execute("inject-nmi")
    seconds_of(watched, "panic: .*NMI")
    frozen, panic = watched.cores
    check_core(frozen, "lab_spin")
    check_core(panic, "Kernel panic - not syncing: NMI")
    machine.control.execute("quit")
    assert watched.end() == 0


FROZEN = r"frozen: CPU \d served no interrupt for"
RESET = "echo 1 >/proc/sys/kernel/panic"


@pytest.mark.parametrize(
    ("architecture", "series", "cpus", "death", "before", "cause", "expected"),
    [
        (X86_64, "6.12", 2, CrashType.PANIC, "", "panic: ", "sysrq_handle_crash"),
        pytest.param(
            *(X86_64, "6.1", 2, CrashType.NULL, RESET, "panic", "lab_null"),
            marks=pytest.mark.matrix,
        ),
        pytest.param(
            *(AARCH64, "6.12", 2, CrashType.PANIC, "", "panic: ", "sysrq_handle_crash"),
            marks=pytest.mark.matrix,
        ),
        pytest.param(
            *(AARCH64, "6.12", 2, CrashType.SPIN, "", FROZEN, "lab_spin"),
            marks=pytest.mark.matrix,
        ),
        pytest.param(
            *(AARCH64, "6.12", 8, CrashType.SPIN, "", FROZEN, "lab_spin"),
            marks=pytest.mark.matrix,
        ),
        pytest.param(
            *(AARCH64, "6.1", 2, CrashType.NULL, RESET, "panic", "lab_null"),
            marks=pytest.mark.matrix,
        ),
    ],
    ids=lambda item: getattr(item, "name", None) if item in ARCHITECTURES else None,
)
def test_without_an_event(
    booted, watch, vmlinux, architecture, series, cpus, death, before, cause, expected
):
    """A panic or hang in memory, or a reset where QEMU was told to pause."""
    machine = booted(series, architecture=architecture, cpus=cpus)
    machine.run(before)
    debug_info, areas = [], []
    if not tells(architecture, series):
        debug_info = ["--vmlinux", str(vmlinux(series, architecture))]
        areas = ["--area", "-symbols"]  # It has none.
    options = ["--hang-after", "3", "--interval", "3", *debug_info, *areas]
    watched = watch(machine, arguments=options)
    watched.wait_for(MARKED)
    watched.wait_without_alarm(LONG)  # Idle CPUs are not frozen.
    trigger_crash(machine, death)
    seconds_of(watched, cause)
    assert watched.end() == 0
    [core] = watched.cores
    check_core(core, expected, options=debug_info)
    # By the watch's own look, of a hang, too, of which the log says nothing.
    report = json.loads(run_kmemdump("report", core, "--json", *debug_info).stdout)
    with read_core(core) as image:
        assert image.manifest.signature == report["cause"]["signature"]["text"]


def test_orderly_reboot_and_poweroff(booted, watch):
    """No core image; QEMU, told to pause instead, is made to reboot."""
    machine = booted("6.12")
    watched = watch(machine)
    watched.wait_for(MARKED)
    lines = len(watched.lines)
    machine.send("busybox reboot -f")
    watched.wait_for("rebooted in an orderly way")
    machine.wait_ready()
    watched.wait_for(MARKED, after=lines)
    machine.send("busybox poweroff -f")
    watched.wait_for("powered off in an orderly way")
    assert watched.end() == 0
    assert watched.cores == []


def test_resets(booted, watch):
    """The VM is not paused, and what a reset leaves of the memory is dumped."""
    machine = booted("6.12", cpus=1, action=REBOOTS)
    machine.run("echo -1 >/proc/sys/kernel/panic")
    watched = watch(machine, arguments=["--then", "continue"])
    watched.wait_for(MARKED)
    lines = len(watched.lines)
    trigger_crash(machine, CrashType.NULL)
    seconds_of(watched, "panic.*")
    machine.wait_ready()
    watched.wait_for(MARKED, after=lines)  # The next boot.
    lines = len(watched.lines)
    machine.control.execute("system_reset")
    seconds_of(watched, "reset by the host without a shutdown")
    machine.wait_ready()
    watched.wait_for(MARKED, after=lines)
    os.kill(machine.pid, signal.SIGKILL)  # Its RAM was a file, which we have open.
    seconds_of(watched, "QEMU ended unexpectedly")
    watched.end()
    assert len(watched.cores) == 3, watched.lines
    for path in watched.cores:
        core = read_core(path)
        assert verify(core) == []
        core.close()


def test_two_of_three_go_wrong(booted, watch, tmp_path):
    """One VM is killed, one QMP socket is silent; the third dies as it should."""
    doomed = booted("6.12", pvpanic=True, share=False)
    machine = booted("newest")
    silent = tmp_path / "silent"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(silent))
        server.listen()
        watched = watch(doomed, machine, silent)
        # A name has no dot at its start.
        names = [f"{item.folder.name[1:]}-qmp" for item in (doomed, machine)]
        for name in names:
            watched.wait_for(f"^{name}: {MARKED}")
        os.kill(doomed.pid, signal.SIGKILL)
        seconds_of(watched, "QEMU ended unexpectedly")
        trigger_crash(machine, CrashType.PANIC)
        seconds_of(watched, "panic: ")
        watched.wait_for(f"-silent: {silent}: the greeting: no answer")
    assert watched.end() == 1
    [old] = [core for core in watched.cores if core.name.startswith(names[0])]
    [new] = [core for core in watched.cores if core.name.startswith(names[1])]
    check_core(new, "sysrq_handle_crash")
    # All that is left is the copy of the last refresh, and it is whole.
    core = read_core(old)
    assert verify(core) == []
    last = core.manifest.areas[-1]
    assert (last.name, last.complete) == ("second look", False)
    assert "memory is gone" in last.reason


def test_killed_while_writing(booted, watch):
    """No half a core image has a name; a new watch takes it from the dead VM."""
    machine = booted("6.12")
    watched = watch(machine)
    watched.wait_for(MARKED)
    folder = watched.folder
    trigger_crash(machine, CrashType.PANIC)
    deadline = time.monotonic() + PATIENCE
    while not os.listdir(folder):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    watched.kill()
    for path in folder.glob("*.core"):  # It may have been faster.
        assert verify(read_core(path)) == []
        path.unlink()
        for record in folder.glob(".*.deaths"):  # Of a death that it has dumped.
            record.unlink()
    again = watch(machine)
    seconds_of(again, "panic: ")
    assert again.end() == 0
    [core] = again.cores
    check_core(core, "sysrq_handle_crash")
