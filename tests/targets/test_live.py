# SPDX-License-Identifier: GPL-2.0-or-later
"""This machine as a target: refused with the way out, or looked at like any other."""

import os
import re
import subprocess
import sys

import pytest

from kmemdump.cli import main
from kmemdump.errors import FormatError, TargetError, UnsupportedError, UsageError
from kmemdump.lab import X86_64, python_image
from kmemdump.opening import open_target
from kmemdump.targets.live import open_live
from rigs.synthetic import elf_core, vmcoreinfo, vmcoreinfo_note

RAM = 0x1000


@pytest.fixture
def machine(tmp_path):
    """A folder that looks like the root of a machine, as far as kmemdump looks."""
    for place in ("proc/self", "sys/kernel/security"):
        (tmp_path / place).mkdir(parents=True)
    return tmp_path


def test_kernel_without_kcore(machine):
    with pytest.raises(
        UnsupportedError, match=r"CONFIG_PROC_KCORE is not set"
    ) as raised:
        open_live(root=machine)
    assert "qmp:SOCKET" in str(raised.value)


def test_container_that_masks_it(machine):
    (machine / "proc/kcore").symlink_to("/dev/null")
    with pytest.raises(UnsupportedError, match="container"):
        open_live(root=machine)


def as_nobody(machine, capabilities="0"):
    """Return what a process without rights is told."""
    code = (
        "import os, sys; from pathlib import Path; from kmemdump.targets import live\n"
        "if sys.argv[1]: live.os.geteuid = lambda: 0\n"
        "os.setresuid(65534, 65534, 65534)\n"
        "try: live.open_live(root=Path())\n"
        "except Exception as e: print(type(e).__name__, e)\n"
    )
    (machine / "proc/kcore").write_bytes(b"secret")
    (machine / "proc/kcore").chmod(0o400)
    (machine / "proc/self/status").write_text(f"CapEff:\t{capabilities}\n")
    machine.chmod(0o755)
    # Nobody may not enter the folders above it, so be there before becoming nobody.
    argv = [sys.executable, "-P", "-c", code, "root" if capabilities != "0" else ""]
    return subprocess.run(
        argv, cwd=machine, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
class TestNotAllowed:
    def test_not_root(self, machine):
        said = as_nobody(machine)
        assert said.startswith("UnsupportedError live: reading /proc/kcore needs root")
        assert "sudo" in said

    def test_root_without_the_capability(self, machine):
        said = as_nobody(machine, f"{1 << 21:016x}")
        assert "CAP_SYS_RAWIO" in said

    def test_locked_down(self, machine):
        lockdown = machine / "sys/kernel/security/lockdown"
        lockdown.write_text("none integrity [confidentiality]\n")
        assert "lockdown=integrity" in as_nobody(machine, f"{1 << 17:016x}")


def test_vmcoreinfo_from_sysfs(machine):
    """Before Linux 4.19 /proc/kcore has no note, but the kernel tells where it is."""
    memory = bytearray(0x2000)
    held = vmcoreinfo_note(vmcoreinfo())
    memory[0x800 : 0x800 + len(held)] = held
    (machine / "proc/kcore").write_bytes(elf_core([(RAM, bytes(memory))]))
    place = machine / "sys/kernel/vmcoreinfo"
    place.write_text(f"{RAM + 0x800:x} 1000\n")
    target = open_live(root=machine)
    assert target.vmcoreinfo().raw == vmcoreinfo()
    assert target.name == "live"
    target.close()
    place.write_text(f"{RAM + 0x400:x} 1000\n")
    with pytest.raises(FormatError, match="no VMCOREINFO at 0x1400"):
        open_live(root=machine)
    place.write_text("what?\n")
    with pytest.raises(FormatError, match="expected an address and a size"):
        open_live(root=machine)
    place.unlink()
    with pytest.raises(UnsupportedError, match="--vmcoreinfo FILE"):
        open_live(root=machine)


def test_file_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "live").write_bytes(b"")
    for spec in ("file:live", "./live"):
        with pytest.raises(TargetError, match="is empty"):
            open_target(spec)
    with pytest.raises(UsageError, match="memory map"):
        open_target("live", memory_map="0")


@pytest.mark.vm
@pytest.mark.matrix
def test_inside_a_machine(booted, lab_cache, tmp_path, capsys):
    machine = booted("6.12", python=python_image(lab_cache, X86_64), tasks=30)
    machine.run("echo 2 >/proc/sys/kernel/kptr_restrict")
    machine.run("echo marked-by-myself >/dev/kmsg")

    # A machine has no registers of itself, and says so.
    said = machine.run("kmemdump capture live -o /run/core || [ $? = 1 ]", timeout=180)
    lacking = re.findall(
        r"^kmemdump: area (\S+) is incomplete: (.*)$", said, re.MULTILINE
    )
    assert [area for area, _ in lacking] == ["stacks", "all-stacks"]
    for _, reason in lacking:
        missing = r"(bt -a|foreach bt): registers for CPU \d were not saved"
        assert re.fullmatch(missing, reason.strip()), reason
    core = tmp_path / "core"
    machine.fetch("/run/core", core)
    assert main(["ask", str(core), "sys", "log", "ps", "mod"]) == 0
    answers = capsys.readouterr().out
    assert machine.run("uname -r") in answers
    assert "marked-by-myself" in answers
    tasks = re.findall(r"^ +(\d+) .* sleep$", answers, re.MULTILINE)
    listed = re.findall(r"^ *(\d+) .* sleep 1000000$", machine.run("ps"), re.MULTILINE)
    assert tasks == listed
    assert len(tasks) == 30
    assert re.search(r"dummy", answers)

    nobody = "import os; os.setuid(65534); from kmemdump.__main__ import run; run()"
    said = machine.run(
        f"chroot /python /usr/bin/python3 -c '{nobody}' ask live sys || [ $? = 3 ]"
    )
    assert said.startswith("kmemdump: error: live: reading /proc/kcore needs root; run")
    machine.run("echo confidentiality >/sys/kernel/security/lockdown")
    said = machine.run("kmemdump ask live sys || [ $? = 3 ]")
    assert said.startswith("kmemdump: error: live: the kernel is locked down")
    assert len(said.splitlines()) == 1
