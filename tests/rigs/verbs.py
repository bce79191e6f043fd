# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the command line as a person would, within limits of memory and time."""

import importlib
import os
import pkgutil
import resource
import signal
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import kmemdump
from kmemdump.cli import main

# Now, not in each run: it takes time, and the user nobody may lack access.
for name in (
    *(f"cli.{verb}" for verb in ("areas", "ask", "capture", "info", "report", "watch")),
    *(
        f"targets.{kind}"
        for kind in ("image", "kdump", "live", "unsupported", "vmcore")
    ),
    "marking.capture",
    "kernel.attach",
    "report",
    "report.inspect",
):
    importlib.import_module(f"kmemdump.{name}")

MEMORY = 2 << 30
"""Address space that a verb may use, in bytes."""
SECONDS = 60
"""CPU seconds that a verb may use; the kernel kills it for more."""
PATIENCE = 900
"""Seconds after which a waiting verb is killed; the host may be busy."""


@dataclass(frozen=True)
class Run:
    """How a verb ended."""

    status: int
    """Negative: the signal that killed it."""
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """The lines of standard error."""
        return self.err.splitlines()


def run(*arguments: str | Path, nobody: bool = False) -> Run:
    """
    Run a verb in a copy of this process.

    This process has imported drgn, which takes longer than most runs.

    :param nobody: Whether to run as the user nobody, which requires root.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _run_and_exit([str(item) for item in arguments], out, err, nobody)
        _, status = os.waitpid(pid, 0)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return Run(os.waitstatus_to_exitcode(status), *texts)


def _import_all() -> None:
    """Import all that a verb may: the user nobody cannot read root's checkout."""
    for module in pkgutil.walk_packages(kmemdump.__path__, "kmemdump."):
        # Modules that gdb runs can be imported only in gdb.
        if not module.name.endswith(("__main__", "gdb_commands")):
            importlib.import_module(module.name)


def _run_and_exit(
    arguments: list[str], out: BinaryIO, err: BinaryIO, nobody: bool
) -> None:
    status = 99
    try:
        if nobody:
            _import_all()
            os.setresuid(65534, 65534, 65534)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.stdout = os.fdopen(1, "w", errors="replace", closefd=False)
        sys.stderr = os.fdopen(2, "w", errors="replace", closefd=False)
        status = main(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
