# SPDX-License-Identifier: GPL-2.0-or-later
"""
Start a process that takes no modules from the current folder.

Python looks for modules there first if it is started with ``-c`` or ``-m``, as
:mod:`multiprocessing` does. But that folder may be a stranger's, with a dump in it.
"""

from __future__ import annotations

import os
import sys
from multiprocessing.process import BaseProcess

__all__ = ["OWN_PYTHON", "start_process"]

OWN_PYTHON = (sys.executable, "-P")
"""The first words of a command line that starts Python."""
_SAFE_PATH = "PYTHONSAFEPATH"


def start_process(process: BaseProcess) -> None:
    """Start a process, and what :mod:`multiprocessing` needs besides."""
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"  # multiprocessing takes no options for Python.
    try:
        process.start()
    finally:
        if before is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = before
