# SPDX-License-Identifier: GPL-2.0-or-later
"""An Arm machine as the desk: it says of a core image what this machine says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kmemdump.lab import (
    AARCH64,
    ARCHITECTURES,
    CrashType,
    Machine,
    PackageCache,
    Setup,
    crash_guest,
    python_image,
)

VERBS = {
    "info": "info NAME",
    "ask": "ask NAME sys log 'bt -a'",
    "report": "report NAME",
    "json": "report NAME --json",
    "capture": "capture NAME -o run/again.core --area -crash",
    "info-json": "info run/again.core --json",
}
"""What is run, in this order."""


def here(arguments: str, folder: Path) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "kmemdump", *shlex.split(arguments)],
        cwd=folder,
        env={**os.environ, "LC_ALL": "C.UTF-8", "TERM": "dumb"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout, done.stderr


def there(machine: Machine, arguments: str, folder: Path) -> tuple[str, str]:
    machine.run(f"kmemdump {arguments} >/run/out 2>/run/err", timeout=600)
    texts = []
    for name in ("out", "err"):
        machine.fetch(f"/run/{name}", folder / name)
        texts.append((folder / name).read_text())
    return texts[0], texts[1]


def without_the_time(text: str) -> str:
    """Leave out how long ago something was, and when a file was written."""
    text = re.sub(r"(?m)^(Captured: .* UTC), .* ago$", r"\1", text)
    return re.sub(r'(?m)^( *"captured": ").*(")', r"\1\2", text)


@pytest.mark.vm
@pytest.mark.matrix
def test_an_arm_desk(
    lab_cache: PackageCache, make_setup: Callable[..., Setup], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for architecture in ARCHITECTURES:
        setup = make_setup("6.12", architecture=architecture, tasks=20)
        with Machine(lab_cache, setup, timeout=900) as machine:
            crash_guest(machine, CrashType.PANIC, timeout=300)
            machine.pause()
            core = f"run/{architecture.name}.core"
            here(f"capture qmp:{machine.qmp} -o {core} --area -crash", tmp_path)

    desk = make_setup(
        "6.12",
        architecture=AARCH64,
        tasks=1,
        python=python_image(lab_cache, AARCH64),
        files=tuple(sorted(run.iterdir())),
    )
    with Machine(lab_cache, desk, timeout=900) as machine:
        machine.run("cp /files/*.core /run")
        assert machine.run("uname -m") == AARCH64.name
        for architecture in ARCHITECTURES:
            name = f"run/{architecture.name}.core"
            for verb, text in VERBS.items():
                arguments = text.replace("NAME", name)
                found = there(machine, arguments, tmp_path)
                expected = here(arguments, tmp_path)
                if verb.startswith("info"):
                    # A machine's own crash and gdb open its own kernels.
                    check_debuggers(found[0], architecture.name == AARCH64.name)
                    found, expected = (
                        (without_debuggers(without_the_time(it[0])), it[1])
                        for it in (found, expected)
                    )
                assert found == expected, (architecture.name, verb)
            # What was written there has the same answers here.
            machine.fetch("/run/again.core", run / "again.core")
            answers = [
                here(VERBS["ask"].replace("NAME", it), tmp_path)[0].replace(it, "CORE")
                for it in (name, "run/again.core")
            ]
            assert answers[0] == answers[1] != ""


def check_debuggers(text: str, own: bool) -> None:
    if text.startswith("{"):
        return
    assert ("not crash: it only opens kernels of its own architecture" in text) != own
    assert re.search(r"(?m)^ *crash VMLINUX ", text) is not None or not own


def without_debuggers(text: str) -> str:
    if text.startswith("{"):
        return re.sub(r'(?s)"debuggers": \[.*?\n  \]', "", text)
    return text.partition("\nOpen it with\n")[0]
