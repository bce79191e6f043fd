# SPDX-License-Identifier: GPL-2.0-or-later
"""Units of systemd, as it understands them."""

import re
import shutil
import sys
from pathlib import Path

import pytest

from rigs.programs import run

__all__ = ["needs_systemd", "verify"]

_PROGRAMS = re.compile("/usr/bin/kmemdump|/sbin/kexec")

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze"
)


def verify(unit: Path, folder: Path) -> tuple[int, str]:
    """
    Return the exit status of systemd-analyze, and what it complains of.

    :param folder: For a copy whose programs are there, as it wants them to be.
    """
    copy = folder / unit.name
    copy.write_text(_PROGRAMS.sub(sys.executable, unit.read_text()))
    done = run("systemd-analyze", "verify", "--man=no", copy)
    return done.returncode, done.stderr
