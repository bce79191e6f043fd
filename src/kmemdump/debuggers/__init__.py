# SPDX-License-Identifier: GPL-2.0-or-later
"""Other debuggers: which can open a file, and how to start them."""

from kmemdump.debuggers.compatibility import (
    DebuggedFile,
    Debugger,
    describe_file,
    find_debuggers,
)
from kmemdump.debuggers.vmlinux import find_vmlinux

__all__ = [
    "DebuggedFile",
    "Debugger",
    "describe_file",
    "find_debuggers",
    "find_vmlinux",
]
