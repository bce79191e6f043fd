# SPDX-License-Identifier: GPL-2.0-or-later
"""Why QEMU ended by itself."""

import signal
import subprocess
from contextlib import suppress

from kmemdump.lab.machine_folder import MachineFolder

__all__ = ["describe_end"]

_PATIENCE = 1.0
"""Seconds between the end of a process's connections and its own."""


def describe_end(process: subprocess.Popen[bytes], folder: MachineFolder) -> str:
    """
    Return how QEMU ended, and what to do; nothing if it runs.

    :param folder: Of its machine.
    """
    with suppress(subprocess.TimeoutExpired):
        process.wait(_PATIENCE)
    if process.returncode is None:
        return ""
    if process.returncode >= 0:
        return f"qemu ended with status {process.returncode}"
    number = -process.returncode
    said = f"qemu was ended by signal {number}"
    if number != signal.SIGBUS:
        return said
    # The guest touched a page of its RAM that the file system could not give it.
    place, size = folder.path.parent, folder.need >> 20
    return f"{said}: no room in {place} for {size} MiB; TMPDIR names another folder"
