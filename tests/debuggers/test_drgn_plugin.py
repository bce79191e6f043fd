# SPDX-License-Identifier: GPL-2.0-or-later
"""drgn with our plugin: core images open without debug info, all else as before."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kmemdump.lab import CrashType
from rigs.dead_machine import DeadMachine
from rigs.programs import KMEMDUMP
from rigs.scenarios import each_series_once, once
from rigs.synthetic import (
    elf_core,
    kdump,
    note,
    prstatus,
    vmcoreinfo,
    vmcoreinfo_note,
)
from rigs.verbs import run
from rigs.writers.kernel_memory import SyntheticKernel

pytestmark = pytest.mark.slow

DRGN = Path(sys.executable).with_name("drgn")
RELEASE = "print(prog['init_uts_ns'].name.release.string_().decode())"
PAGE = 4096


def drgn(*arguments: str | Path, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(item) for item in (DRGN, *arguments, "-e", script)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "DEBUGINFOD_URLS": ""},
        timeout=300,
    )


def warnings(ended: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in ended.stderr.splitlines() if "kmemdump:" in line]


def assert_as_without_plugin(
    *arguments: str | Path, script: str
) -> subprocess.CompletedProcess[str]:
    """Say what drgn says without us, but for a warning of ours."""
    ended = drgn(*arguments, script=script)
    os.environ["DRGN_DISABLE_PLUGINS"] = "kmemdump"
    try:
        without = drgn(*arguments, script=script)
    finally:
        del os.environ["DRGN_DISABLE_PLUGINS"]
    assert (ended.returncode, ended.stdout) == (without.returncode, without.stdout)
    said = [line for line in ended.stderr.splitlines() if "kmemdump:" not in line]
    assert said == without.stderr.splitlines()
    return ended


def test_a_process(tmp_path):
    path = tmp_path / "core"
    data = elf_core(
        [(0, b"hello".ljust(PAGE, b"\0"))], note(b"CORE", 1, prstatus(0)), vaddr=0x40000
    )
    path.write_bytes(data)
    arguments = ("--no-default-symbols", "-c", path)
    script = "print(prog.read(0x40000, 5))"
    ended = assert_as_without_plugin(*arguments, script=script)
    assert ended.stdout == "b'hello'\n"
    assert warnings(ended) == []


@pytest.fixture
def sleeper() -> Iterator[int]:
    process = subprocess.Popen(("sleep", "1000"))
    time.sleep(0.1)
    yield process.pid
    process.kill()
    process.wait()


def test_a_live_process(sleeper):
    ended = assert_as_without_plugin(
        "-p", str(sleeper), script="print(len(list(prog.threads())))"
    )
    assert ended.stdout == "1\n", ended.stderr
    assert warnings(ended) == []


def test_the_live_kernel():
    ended = assert_as_without_plugin("-k", script="print(prog.flags)")
    assert warnings(ended) == []


FOREIGN = {
    "empty-kernel": elf_core([(0x1000, bytes(PAGE))], vmcoreinfo_note(vmcoreinfo())),
    "kdump": kdump({1: bytes(PAGE)}, info=vmcoreinfo()),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_vmcore(kind, tmp_path):
    """It opens, or is refused, as ever; what it lacks is asked for in one line."""
    path = tmp_path / kind
    path.write_bytes(FOREIGN[kind])
    script = "print(prog.flags)\ntry: prog['init_task']\nexcept KeyError as e: print(e)"
    ended = assert_as_without_plugin("-c", path, script=script)
    assert len(warnings(ended)) <= 1
    assert ended.stderr.count("Traceback") <= (ended.returncode != 0)


def test_a_kernel_that_encrypts_its_memory(tmp_path):
    kernel = SyntheticKernel("x86_64", encrypted=1 << 47)
    info = "".join(f"{name}={value}\n" for name, value in kernel.truth.items())
    core = elf_core([(0, bytes(kernel.memory))], vmcoreinfo_note(info.encode()))
    path = tmp_path / "core"
    path.write_bytes(core)
    banner = kernel.parts["banner"].start
    script = f"print(prog.read({kernel.direct + banner:#x}, 13))"
    ended = drgn("-c", path, script=script)
    assert ended.stdout == "b'Linux version'\n", ended.stderr


def test_a_core_image_with_broken_notes(tmp_path):
    broken = note(b"KMEMDUMP", 0x4B4D4432, bytes(4))
    path = tmp_path / "core"
    path.write_bytes(
        elf_core([(0x1000, bytes(PAGE))], vmcoreinfo_note(vmcoreinfo()) + broken)
    )
    ended = assert_as_without_plugin("-c", path, script="print(prog.flags)")
    (warning,) = warnings(ended)
    assert f"warning: kmemdump: {path}: note KMEMDUMP: 4 bytes" in warning


OPTIONS = [(), ("--no-default-symbols",), ("-q",)]


@each_series_once
def test_a_core_image_without_debug_info(dead: DeadMachine, core_image: Path) -> None:
    for options in OPTIONS:
        ended = drgn(*options, "-c", core_image, script=RELEASE)
        assert ended.stdout.strip() == dead.machine.setup.kernel.release, ended.stderr
        assert warnings(ended) == [
            line for line in warnings(ended) if "symbols for kmemdump_lab" in line
        ]
        assert "Traceback" not in ended.stderr
        # They are not missing: they are in the core image.
        assert "missing some debugging symbols" not in ended.stderr


@each_series_once
def test_the_current_folder_is_looked_into_last(
    dead: DeadMachine, core_image: Path, tmp_path: Path
) -> None:
    """It may have a stranger's files, with names of Python's own modules."""
    for name in ("plistlib", "of_mine"):
        (tmp_path / f"{name}.py").write_text("print('run')\n")
    script = "import plistlib; print(plistlib.FMT_XML.name); import of_mine"
    command = [*KMEMDUMP, "open", str(core_image), "--", "-q", "-e", script]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert ended.stdout == "FMT_XML\nrun\n", ended.stderr


@once
def test_a_core_image_with_debug_info(dead: DeadMachine, core_image: Path) -> None:
    """Then drgn's is used: file names are known, which BTF does not know."""
    debug_file = dead.vmlinux
    script = f"{RELEASE}\nprint(prog.type('struct task_struct', 'sched.h').size > 1000)"
    for options in OPTIONS:
        ended = drgn(*options, "-s", debug_file, "-c", core_image, script=script)
        assert ended.stdout.split() == [dead.machine.setup.kernel.release, "True"], (
            ended.stderr
        )


SYSCALL = {"x86_64": "do_syscall_64", "aarch64": "do_el0_svc"}


@each_series_once
def test_stacks_without_debug_info(dead: DeadMachine, core_image: Path) -> None:
    script = (
        "from drgn.helpers.linux.pid import find_task\n"
        "print(prog.stack_trace(find_task(prog, 1)))"
    )
    ended = drgn("-q", "--no-default-symbols", "-c", core_image, script=script)
    # A shell, which waits unless it is what died.
    panics = dead.scenario.death is CrashType.PANIC
    waits = "sysrq_handle_crash" if panics else "schedule"
    assert waits in ended.stdout, ended.stderr
    assert SYSCALL[dead.scenario.architecture.name] in ended.stdout


@once
def test_a_core_image_without_symbols(
    dead: DeadMachine, core_image: Path, tmp_path: Path
) -> None:
    path = tmp_path / "small.core"
    small = ("--area", "kmsg", "--area", "coreinfo")
    assert run("capture", core_image, "-o", path, *small).status == 0
    script = "print(prog.flags)\nfor i in 'ab':\n  try: prog['init_uts_ns']\n"
    script += "  except KeyError as e: print(e)"
    ended = drgn("-c", path, script=script)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("could not find 'init_uts_ns'") == 2
    ours = [line for line in warnings(ended) if "kmemdump:" in line]
    assert len(ours) == 1, ended.stderr
    release = dead.machine.setup.kernel.release
    assert f"give the debug file of {release} with -s" in ours[0]
    assert "Traceback" not in ended.stderr
    debug_file = dead.vmlinux
    ended = drgn("-s", debug_file, "-c", path, script=RELEASE)
    assert ended.stdout.strip() == dead.machine.setup.kernel.release
