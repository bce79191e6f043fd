# SPDX-License-Identifier: GPL-2.0-or-later
"""Build the crash kernel's copier for a guest; needs gcc."""

from __future__ import annotations

import hashlib
import platform
import shutil
import tempfile
from pathlib import Path

from kmemdump.crash_kernel.initramfs import COPIER
from kmemdump.crash_kernel.installation import find_copier
from kmemdump.errors import UnsupportedError
from kmemdump.installing import require_programs
from kmemdump.lab.architectures import Architecture
from kmemdump.lab.commands import run
from kmemdump.lab.module import find_compiler
from kmemdump.lab.packages import PackageCache

__all__ = ["build_copier"]

_SOURCE = Path(__file__).parents[3] / "kdump"


def build_copier(cache: PackageCache, architecture: Architecture) -> Path:
    """
    Return the copier, built for an architecture.

    Without the source it is the installed one, if that is for this machine.

    :raises UnsupportedError: If the compiler or the source is missing, or the compiler
        refuses it.
    """
    if not (_SOURCE / "Makefile").exists():
        if architecture.name == platform.machine():
            return find_copier()
        raise UnsupportedError(f"{_SOURCE}: no source, expected a clone of kmemdump")
    cross = _find_compiler(architecture)
    sources = [_SOURCE / "Makefile", *sorted(_SOURCE.glob("*.[ch]"))]
    made_of = [path.read_bytes() for path in sources]
    digest = hashlib.sha256(b"".join(made_of)).hexdigest()[:12]

    def make(folder: Path) -> None:
        # make is told no path of the user's: blanks and colons in it are its syntax.
        with tempfile.TemporaryDirectory(prefix="kmemdump-copier-") as name:
            for path in sources:
                shutil.copy(path, name)
            run("make", "-s", f"CROSS={cross}", "BUILD=build", cwd=Path(name))
            shutil.copy(Path(name, "build", COPIER), folder)

    return cache.entry(f"{COPIER}-{digest}-{architecture.name}", make) / COPIER


def _find_compiler(architecture: Architecture) -> str:
    """
    Return the beginning of its name.

    :raises UnsupportedError: If it, or make, is not installed.
    """
    require_programs("make")
    own = architecture.name == platform.machine()
    if own and shutil.which(f"{architecture.compiler}gcc") is None:
        require_programs("gcc")  # Other distributions' own has another name.
        return ""
    find_compiler(architecture)
    return architecture.compiler
