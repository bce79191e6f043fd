# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the command line as a person would, within limits of memory and time."""

import importlib
import multiprocessing
import os
import pkgutil
import resource
import signal
import sys
import tempfile
import traceback
from dataclasses import dataclass
from functools import cache
from multiprocessing import forkserver
from pathlib import Path

import pytest

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
importlib.import_module("difflib")  # click's, for near misses.

_SERVER = multiprocessing.get_context("forkserver")

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
    Run a verb in a copy of a process that has imported drgn, which takes longer than
    most runs.

    That is not this process: its threads may hold locks, which a copy never gets.

    :param nobody: Whether to run as the user nobody, which requires root.
    """
    _start_server()
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("out", "err")]
        given = [str(item) for item in arguments]
        process = _SERVER.Process(target=_run_and_exit, args=(given, *paths, nobody))
        process.start()
        process.join()
        status = process.exitcode
        process.close()
        assert status is not None
        return Run(status, *(Path(it).read_text(errors="replace") for it in paths))


@cache
def _start_server() -> None:
    """
    Start the process that is copied, with all of this imported.

    Python 3.11 passes ``sys.path`` to it, but does not use it, and passes over what it
    cannot import.
    """
    _SERVER.set_forkserver_preload(["rigs.verbs"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        forkserver.ensure_running()


def _import_all() -> None:
    """Import all that a verb may: the user nobody cannot read root's checkout."""
    for module in pkgutil.walk_packages(kmemdump.__path__, "kmemdump."):
        # Modules that gdb runs can be imported only in gdb.
        if not module.name.endswith(("__main__", "gdb_commands")):
            importlib.import_module(module.name)


def _run_and_exit(arguments: list[str], out: str, err: str, nobody: bool) -> None:
    status = 99
    try:
        for number, path in enumerate((out, err), 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
        if nobody:
            _import_all()
            os.setresuid(65534, 65534, 65534)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout = os.fdopen(1, "w", errors="replace", closefd=False)
        sys.stderr = os.fdopen(2, "w", errors="replace", closefd=False)
        status = main(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
